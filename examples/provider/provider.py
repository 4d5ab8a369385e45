#!/usr/bin/env python3
"""A stand-in for a provider of models, for `make run`. It answers `POST /v1/chat/completions` as OpenAI does, streamed or
not, always with the same words.

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


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
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
        body = json.dumps(value).encode()
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
