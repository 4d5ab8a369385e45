"""Requests of MCP that slip past one gate or another: they call the tool `delete_all`, or `read_file` for another path
than /ok, or ask for a prompt or a resource, in a way that some server answers. Those called `allowed` do none of that.

A body has MARK where the arguments of the tool name the request, and REST where a request without a session has its
`_meta`.
"""

import codecs
import gzip
import json
import zlib

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "hostile", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
OK, BAD = '"get_weather"', '"delete_all"'
# Where bodies have the mark, and what else a request without sessions needs.
MARK, REST = "MARK", "REST"
ARGUMENTS = f'"arguments":{{"mark":"{MARK}"}}{REST}'


def call(name=BAD, arguments=ARGUMENTS, head='"jsonrpc":"2.0","id":1,"method":"tools/call"'):
    return f'{{{head},"params":{{"name":{name},{arguments}}}}}'


def params(text, head='"jsonrpc":"2.0","id":1,"method":"tools/call"'):
    """A call whose parameters are this text."""
    return f'{{{head},"params":{{{text}}}}}'


def read_file(arguments):
    return params(f'"name":"read_file","arguments":{{{arguments},"mark":"{MARK}"}}{REST}')


def others():
    """Names, methods, what the header names, and bodies of requests that name no tool."""
    for method, name, member in (
        ("resources/read", f"secret://{MARK}", "uri"),
        ("prompts/get", "secret", "name"),
    ):
        head = f'"jsonrpc":"2.0","id":1,"method":"{method}"'
        yield method, method, name, params(f'"{member}":"{name}",{ARGUMENTS}', head)
    named = f'"name":{OK},"uri":"secret://{MARK}",{ARGUMENTS}'
    head = '"jsonrpc":"2.0","id":1,"method":"resources/read"'
    yield "resources/read with a tool's name", "resources/read", f"secret://{MARK}", params(named, head)


def bodies():
    """Names and bodies; what is text is sent as UTF-8."""
    plain = call()
    yield "allowed", call(OK)
    yield "allowed path", read_file('"path":"/ok"')
    yield "plain", plain
    for name, _, _, text in others():
        yield name, text
    yield "escaped value", call('"delete\\u005fall"')
    yield "escaped members", params(f'"n\\u0061me":{BAD},{ARGUMENTS}').replace('"params"', '"p\\u0061rams"')
    yield "white space", plain.replace(":", " :\r\n\t")
    yield "parameters first", f'{{"params":{{{ARGUMENTS},"name":{BAD}}},"method":"tools/call","id":1,"jsonrpc":"2.0"}}'

    for name, first, last in (("first", BAD, OK), ("last", OK, BAD)):
        yield f"name twice, {name} is bad", params(f'"name":{first},"name":{last},{ARGUMENTS}')
        yield f"escaped name twice, {name} is bad", params(f'"name":{first},"n\\u0061me":{last},{ARGUMENTS}')
        both = f'"params":{{"name":{first},{ARGUMENTS}}},"params":{{"name":{last},{ARGUMENTS}}}'
        yield f"params twice, {name} is bad", f'{{"jsonrpc":"2.0","id":1,"method":"tools/call",{both}}}'
    for name, first, last in (("first", "tools/call", "tools/list"), ("last", "tools/list", "tools/call")):
        head = f'"jsonrpc":"2.0","id":1,"method":"{first}","method":"{last}"'
        yield f"method twice, call is {name}", call(head=head)
    yield "id twice", call(head='"jsonrpc":"2.0","id":1,"id":2,"method":"tools/call"')
    yield "path twice, first is bad", read_file('"path":"/etc","path":"/ok"')
    yield "path twice, last is bad", read_file('"path":"/ok","path":"/etc"')
    yield "path twice, escaped", read_file('"path":"/ok","p\\u0061th":"/etc"')
    yield "arguments twice", params(
        f'"name":"read_file","arguments":{{"path":"/ok"}},"arguments":{{"path":"/etc","mark":"{MARK}"}}{REST}'
    )
    yield "path is bad", read_file('"path":"/etc"')
    yield "path escaped", read_file('"path":"\\u002fetc"')
    yield "path absent, case", read_file('"path":"/ok","Path":"/etc"')

    for other in ("Name", "NAME", "nam\u0065\u0000", "name\\u0000", "name ", "\ufeffname"):
        yield f"other member {other!r}", params(f'"name":{OK},"{other}":{BAD},{ARGUMENTS}')
        yield f"only member {other!r}", params(f'"{other}":{BAD},{ARGUMENTS}')
    for other in ("Params", "PARAMS", "param\u017f", "param\\u017f"):
        members = f'"params":{{"name":{OK},{ARGUMENTS}}},"{other}":{{"name":{BAD},{ARGUMENTS}}}'
        yield f"other member {other!r}", f'{{"jsonrpc":"2.0","id":1,"method":"tools/call",{members}}}'
    yield "other member 'Method'", call(head='"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call"')
    yield "other member 'argument\u017f'", read_file('"path":"/ok"').replace('"mark"', '"x":1,"mark"').replace(
        '"params":{', f'"params":{{"argument\u017f":{{"path":"/etc","mark":"{MARK}"}},'
    )
    for value in ("delete_all\\u0000", "get_weather\\u0000delete_all", "delete_all ", "Delete_All", "delete\\u005Fall"):
        yield f"value {value}", call(f'"{value}"')

    for encoding in ("utf-16-le", "utf-16-be", "utf-16", "utf-32-le", "utf-32-be", "utf-32", "utf-8-sig", "utf-7"):
        yield encoding, lambda text, encoding=encoding: text.encode(encoding), plain
    yield "UTF-16 BE with mark", lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"), plain
    yield "Latin-1", lambda text: text.encode("latin-1"), call(arguments=f'"x":"\xe9",{ARGUMENTS}')
    for name, piece in (("lone continuation", b"\x80"), ("overlong", b"\xc1\x9f"), ("surrogate", b"\xed\xa0\x80")):

        def with_piece(text, piece=piece):
            return text.encode().replace(b"BYTES", piece)

        yield name, with_piece, call(arguments=f'"x":"BYTES",{ARGUMENTS}')
        yield f"{name} in the name", with_piece, call('"delete_allBYTES"')
    yield "overlong underscore", lambda text: text.encode().replace(b"delete_all", b"delete\xc1\x9fall"), plain
    yield "lone surrogate", call(arguments=f'"x":"\\ud800",{ARGUMENTS}')
    yield "lone surrogate in the name", call('"delete_all\\udc00"')

    for value in ("NaN", "Infinity", "-Infinity", "1e999", "-0", "01", "1.", "0x10", "9" * 400, "True", "undefined"):
        yield f"value {value[:12]}", call(arguments=f'"x":{value},{ARGUMENTS}')
    for value in ("null", "1.5", "true", '""', "{}", "[]", "9007199254740993", "-1", '"\\ud800"', "1e2"):
        yield f"id {value}", call(head=f'"jsonrpc":"2.0","id":{value},"method":"tools/call"')
    yield "no id", call(head='"jsonrpc":"2.0","method":"tools/call"')
    yield "no jsonrpc", call(head='"id":1,"method":"tools/call"')
    yield "jsonrpc 1.0", call(head='"jsonrpc":"1.0","id":1,"method":"tools/call"')
    yield "with a result", call(head='"jsonrpc":"2.0","id":1,"result":{},"method":"tools/call"')
    yield "with an error", call(head='"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"},"method":"tools/call"')
    yield "as a task", call(arguments=f'"task":{{"ttl":60000}},{ARGUMENTS}')
    for method in ("Tools/Call", "tools/call ", "tools\\/call", "tools\\u002fcall", "TOOLS/CALL", "/tools/call"):
        yield f"method {method}", call(head=f'"jsonrpc":"2.0","id":1,"method":"{method}"')

    listing = '{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}'
    yield "batch of one", f"[{plain}]"
    yield "batch", f"[{listing},{plain}]"
    yield "batch in a batch", f"[[{plain}]]"
    yield "trailing garbage", plain + "x"
    yield "second document", f"{call(OK)}\n{plain}"
    yield "second document, glued", call(OK) + plain
    yield "first document is bad", f"{plain}\n{call(OK)}"
    yield "NUL at the end", plain + "\0"
    yield "record separator", "\x1e" + plain + "\n"
    yield "no-break space", "\xa0" + plain
    yield "comment", "/* x */" + plain
    yield "comma too many", plain[:-1] + ",}"
    yield "single quotes", plain.replace('"', "'")
    yield "newline in a string", call(arguments=f'"x":"\n",{ARGUMENTS}')
    yield "as a form", "payload=" + plain
    yield "as an event", f"event: message\ndata: {plain}\n\n"

    for depth in (30, 60, 130, 190, 2000):
        nested = "[" * depth + "]" * depth
        yield f"depth {depth} after the name", call(arguments=f'{ARGUMENTS},"x":{nested}')
        yield f"depth {depth} before the name", params(f'"x":{nested},"name":{BAD},{ARGUMENTS}')
    for size in (70_000, 600_000, 3_000_000):
        yield f"{size} bytes before the name", params(f'"x":"{"y" * size}","name":{BAD},{ARGUMENTS}')
        yield f"{size} spaces in front", " " * size + plain
    many = ",".join(f'"m{number}":1' for number in range(5000))
    yield "many members", params(f'{many},"name":{BAD},{ARGUMENTS}')


def requests(modern):
    """Requests: a name, the method of HTTP, the target, headers, and the body as bytes with the mark in it."""
    version = "2026-07-28" if modern else "2025-06-18"
    meta = f',"_meta":{json.dumps(META)}' if modern else ""
    names = [("mcp-method", "tools/call"), ("mcp-name", "delete_all")] if modern else []
    usual = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", version),
        *names,
    ]
    plain = call().replace(REST, meta)

    def without(*gone):
        return [header for header in usual if header[0] not in gone]

    for name, *ways, text in bodies():
        encode = ways[0] if ways else str.encode
        headers = usual
        if modern:
            # The header that fits what the gate could read first, and the one that fits what the server runs.
            for named in ("delete_all", "get_weather", "read_file"):
                if named in text or "\\" in text and named == "delete_all":
                    headers = [*without("mcp-name"), ("mcp-name", named)]
                    yield f"{name} [{named}]", "POST", "", headers, encode, text.replace(REST, meta)
            continue
        yield name, "POST", "", headers, encode, text.replace(REST, meta)

    if modern:
        for name, method, named, text in others():
            headers = [*without("mcp-method", "mcp-name"), ("mcp-method", method), ("mcp-name", named)]
            yield f"{name} [{method}]", "POST", "", headers, str.encode, text.replace(REST, meta)

    def post(name, headers, text=plain, encode=str.encode, target="", method="POST"):
        return name, method, target, headers, encode, text

    for kind in (
        "Application/JSON", "APPLICATION/JSON", "text/plain", "text/json", "application/json; charset=utf-16",
        "application/json;charset=utf-7", "application/x-www-form-urlencoded", "application/octet-stream",
        "application/json, text/plain", "application/vnd.api+json", " application/json", "application/json;",
        "application/json-rpc", "*/*", "",
    ):  # fmt: skip
        yield post(f"content-type {kind!r}", [("content-type", kind), *without("content-type")])
    yield post("no content-type", without("content-type"))
    yield post("two content-types", [("content-type", "text/plain"), *usual])
    yield post("two content-types, other order", [*usual, ("content-type", "text/plain")])
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        headers = [("content-type", f"application/json; charset={encoding}"), *without("content-type")]
        yield post(f"said {encoding}", headers, encode=lambda text, encoding=encoding: text.encode(encoding))
    for coding, code in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        coded = [*usual, ("content-encoding", coding)]
        yield post(coding, coded, encode=lambda text, code=code: code(text.encode()))
        yield post(f"said {coding}, plain", coded)
    yield post("identity", [*usual, ("content-encoding", "identity")])

    for said in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28", "2099-01-01", "draft", ""):
        yield post(f"version {said}", [*without("mcp-protocol-version"), ("mcp-protocol-version", said)])
    yield post("no version", without("mcp-protocol-version"))
    yield post("two versions", [*usual, ("mcp-protocol-version", "2025-03-26")])
    for value in (
        "get_weather", "=?base64?ZGVsZXRlX2FsbA==?=", "=?BASE64?ZGVsZXRlX2FsbA==?=", "=?base64?ZGVsZXRlX2FsbA?=",
        "=?base64?Z2V0X3dlYXRoZXI=?=", "DELETE_ALL", "delete_all, get_weather", "", "=?base64??=",
    ):  # fmt: skip
        yield post(f"mcp-name {value}", [*without("mcp-name"), ("mcp-method", "tools/call"), ("mcp-name", value)])
    yield post("mcp-name twice", [*usual, ("mcp-name", "get_weather")])
    yield post("mcp-name twice, other order", [("mcp-name", "get_weather"), *usual])
    yield post("mcp-method lists", [*without("mcp-method"), ("mcp-method", "tools/list")])
    yield post("no mirrors", without("mcp-name", "mcp-method"))
    for header in ("x-http-method-override", "x-method-override"):
        yield post(header, [*usual, (header, "GET")])
    for target in ("/", "?x=1", "?", "//", "/.", "/../mcp", "%2f", ";x", "/%2e%2e/mcp", "/x/../../mcp", "#x", "/main"):
        yield post(f"path {target}", usual, target=target)
    for target in ("//mcp", "/MCP", "/./mcp", "/%6dcp", "/x/..//mcp", "/mcp\\", "/mcp/mcp"):
        yield post(f"target {target}", usual, target=f"={target}")
    for method in ("PUT", "PATCH", "GET", "DELETE", "post", "OPTIONS", "QUERY"):
        yield post(f"method {method}", usual, method=method)
    yield post("chunked", [*usual, ("transfer-encoding", "chunked")])
    yield post("chunked bytes", [*usual, ("transfer-encoding", "Chunked")])
    yield post("chunked and length", [*usual, ("transfer-encoding", "chunked"), ("content-length", "5")])
