"""Sends an MCP server every request that is known to slip past one parser or another, and says what it ran.

    hostile.py URL FILE [KEY]
    hostile.py stdio FILE COMMAND [ARGUMENT...]

The second sends the bodies alone, as lines, to a server that it starts. FILE is what recording.py notes in. A key, if
there is one, should allow the tool `get_weather`, `read_file` for the path /ok alone, and no prompt and no resource.
Standard output is a JSON list: for each request its `name`, the `status` of the answer (0: the connection was closed),
what it `ran` (lines of FILE, without the mark), and what of that is `forbidden`.
"""

import http.client
import json
import queue
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from evasions import MARK, REST, bodies, requests

TIMEOUT_SECS = 20
# Servers that answer first and run the tool afterwards have this long.
REST_SECS = 0.3


def pieces(body):
    """The body in chunks of a byte, as no client writes it."""
    return b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


def send(url, key, request, mark):
    """The status of the answer, 0 where there is none."""
    _, method, target, headers, encode, text = request
    body = encode(text.replace(MARK, mark))
    path = target[1:] if target.startswith("=") else url.path + target
    names = {name for name, _ in headers}
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_SECS)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value.replace(MARK, mark))
        if key:
            connection.putheader("authorization", f"Bearer {key}")
        if "transfer-encoding" in names:
            body = pieces(body)
        else:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def is_forbidden(line):
    return line not in ("get_weather", "read_file /ok")


def over_http(url, key):
    """Names, and the status of each answer; the number of a request is its mark."""
    url = urlsplit(url)
    sent = [(era, request) for era in ("legacy", "modern") for request in requests(era == "modern")]
    return [
        (f"{era}/{request[0]}", send(url, key, request, f"m{number}")) for number, (era, request) in enumerate(sent)
    ]


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": "the-first-one",
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "hostile", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LAST = {"jsonrpc": "2.0", "id": "the-last-one", "method": "ping"}


def over_stdio(command):
    """The same; no answer has a status."""
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    answers = queue.Queue()

    def read():
        for line in server.stdout:
            answers.put(line.decode(errors="replace"))
        answers.put("")

    # A server that nobody listens to stops to read.
    Thread(target=read).start()

    def write(line):
        server.stdin.write(line + b"\n")
        server.stdin.flush()

    def wait_for(request):
        while line := answers.get(timeout=TIMEOUT_SECS):
            if request["id"] in line:
                return
        raise SystemExit("the server has left")

    write(json.dumps(INITIALIZE).encode())
    wait_for(INITIALIZE)
    write(json.dumps(INITIALIZED).encode())
    names = []
    for number, (name, *ways, text) in enumerate(bodies()):
        encode = ways[0] if ways else str.encode
        # No two requests in a session have one id.
        text = text.replace('"id":1,', f'"id":{1000 + number},').replace(REST, "").replace(MARK, f"m{number}")
        write(encode(text))
        names.append((f"stdio/{name}", 0))
    write(json.dumps(LAST).encode())
    wait_for(LAST)
    time.sleep(REST_SECS)
    server.stdin.close()
    server.wait(TIMEOUT_SECS)
    return names


def main():
    target, file, *rest = sys.argv[1:]
    file = Path(file)
    # A run does not take the lines of one before it for its own.
    before = len(file.read_text().splitlines()) if file.exists() else 0
    sent = over_stdio(rest) if target == "stdio" else over_http(target, next(iter(rest), None))
    time.sleep(REST_SECS)
    ran = {}
    for line in file.read_text().splitlines()[before:]:
        tool, mark, *rest = line.split(" ")
        ran.setdefault(mark, []).append(" ".join([tool, *rest]))
    said = []
    for number, (name, status) in enumerate(sent):
        lines = ran.pop(f"m{number}", [])
        said.append({"name": name, "status": status, "ran": lines, "forbidden": list(filter(is_forbidden, lines))})
    # What has lost its mark on the way is nobody's, and still ran.
    if ran:
        lines = sum(ran.values(), [])
        said.append({"name": "unmarked", "status": 0, "ran": lines, "forbidden": list(filter(is_forbidden, lines))})
    print(json.dumps(said))


if __name__ == "__main__":
    main()
