#!/usr/bin/env python3
"""A stand-in for a provider of models and an MCP server, for `make run`. It answers `POST /v1/chat/completions` as OpenAI
does, streamed or not, always with the same words. `POST /mcp` is an MCP server with two tools and without sessions.

    provider.py PORT

It listens on 127.0.0.1 and needs nothing but Python's standard library.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["Rhine", ", ", "Danube", ", ", "Elbe", "."]
SECS_PER_WORD = 0.05
PROMPT_BYTES_PER_TOKEN = 4

TOOLS = {"search_rivers": "Rhine, Danube, Elbe", "delete_river": "deleted"}
INITIALIZED = {"capabilities": {"tools": {}}, "serverInfo": {"name": "rivers", "version": "1"}}
METHOD_NOT_FOUND = {"code": -32601, "message": "the server does not know the method"}
UNKNOWN_TOOL = {"code": -32602, "message": "the server has no such tool"}


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/mcp":
            return self.answer_message(json.loads(body))
        try:
            request = json.loads(body)
            prompt = "".join(str(message.get("content")) for message in request["messages"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return self.reply(400, {"error": {"message": "a chat completion is expected", "type": "invalid_request_error"}})
        model = request.get("model")
        tokens = max(1, len(prompt) // PROMPT_BYTES_PER_TOKEN)
        usage = {"prompt_tokens": tokens, "completion_tokens": len(WORDS), "total_tokens": tokens + len(WORDS)}
        if request.get("stream"):
            wants_usage = (request.get("stream_options") or {}).get("include_usage")
            return self.stream(model, usage if wants_usage else None)
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.reply(200, {"id": "chatcmpl-demo", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage})

    def answer_message(self, message):
        """Answers one message of MCP. Only requests have an id."""
        if "id" not in message or "method" not in message:
            return self.reply(202, None)
        params = message.get("params") or {}
        outcome = {"error": METHOD_NOT_FOUND}
        if message["method"] == "initialize":
            outcome = {"result": INITIALIZED | {"protocolVersion": params.get("protocolVersion")}}
        elif message["method"] == "ping":
            outcome = {"result": {}}
        elif message["method"] == "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
            outcome = {"result": {"tools": tools}}
        elif message["method"] == "tools/call":
            text = TOOLS.get(params.get("name"))
            found = {"result": {"content": [{"type": "text", "text": text}]}}
            outcome = found if text else {"error": UNKNOWN_TOOL}
        self.reply(200, {"jsonrpc": "2.0", "id": message["id"]} | outcome)

    def stream(self, model, usage):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        event = {"id": "chatcmpl-demo", "object": "chat.completion.chunk", "model": model}
        for word in WORDS:
            self.send_event(event | {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            time.sleep(SECS_PER_WORD)
        self.send_event(event | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if usage is not None:
            self.send_event(event | {"choices": [], "usage": usage})
        self.send_chunk(b"data: [DONE]\n\n")
        self.send_chunk(b"")

    def send_event(self, event):
        self.send_chunk(f"data: {json.dumps(event)}\n\n".encode())

    def send_chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def reply(self, status, value):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: the gate writes the audit lines."""


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that leaves is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit("usage: provider.py PORT")
    try:
        Server(("127.0.0.1", int(sys.argv[1])), Provider).serve_forever()
    except KeyboardInterrupt:
        pass
