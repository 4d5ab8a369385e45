"""An MCP server on the package `mcp`, that notes every tool that it runs, and what else it gives.

    recording.py FILE [stdio]

It serves /mcp on a free port of this machine alone, and writes the port to standard output; or it serves standard input
and output. A line of the file is the name of a tool, or what else was asked for, and its arguments: the mark of the
request, and for `read_file` the path.
"""

import socket
import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

ran = Path(sys.argv[1])
server = MCPServer("recording")


def note(*words):
    with ran.open("a") as file:
        file.write(" ".join(words) + "\n")
    return "done"


@server.tool()
def get_weather(mark: str = "none") -> str:
    return note("get_weather", mark)


@server.tool()
def delete_all(mark: str = "none") -> str:
    return note("delete_all", mark)


@server.tool()
def read_file(path: str, mark: str = "none") -> str:
    return note("read_file", mark, path)


@server.prompt("secret")
def secret_prompt(mark: str = "none") -> str:
    return note("prompt", mark)


@server.resource("secret://{mark}")
def secret_resource(mark: str) -> str:
    return note("resource", mark)


def main():
    ran.touch()
    if sys.argv[2:] == ["stdio"]:
        server.run("stdio")
        return
    # No request needs another before it; and a proxy may remove the port of the host, which the server wants there.
    any_host = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(stateless_http=True, json_response=True, transport_security=any_host)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


main()
