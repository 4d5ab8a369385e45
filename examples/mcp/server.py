"""A small MCP server on standard input and output, for trying `vkey mcp`: it has one tool, `add`."""

import json
import sys

TOOL = {
    "name": "add",
    "description": "Add two numbers",
    "inputSchema": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
}


def result_of(method, params):
    if method == "initialize":
        server = {"name": "example", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": server}
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        arguments = params["arguments"]
        return {"content": [{"type": "text", "text": str(arguments["a"] + arguments["b"])}]}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        result = result_of(message["method"], message.get("params", {}))
        response = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        print(json.dumps(response, separators=(",", ":")), flush=True)
