"""An MCP server that does what it is told: what it reads goes to the file given, byte for byte."""

import json
import os
import signal
import subprocess
import sys
import time

out = sys.stdout.buffer
record = open(sys.argv[1], "ab", 0)


def say(message):
    out.write((message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)).encode())
    if not isinstance(message, str):
        out.write(b"\n")
    out.flush()


def answer(message, result):
    say({"jsonrpc": "2.0", "id": message["id"], "result": result})


def main():
    held = []
    for line in iter(sys.stdin.buffer.readline, b""):
        record.write(line)
        message = json.loads(line)
        method, params = message.get("method"), message.get("params") or {}
        if method == "initialize":
            answer(message, {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}})
        elif method == "echo":
            answer(message, params)
        elif method == "say":  # as it is, line ends too
            for text in params["texts"]:
                say(text)
        elif method == "fill":
            say('{"jsonrpc":"2.0","id":%s,"result":"%s"}\n' % (json.dumps(message["id"]), "x" * params["bytes"]))
        elif method == "hold":
            held.append(message)
        elif method == "release":  # last in, first out
            for one in reversed(held):
                answer(one, one["params"])
            held.clear()
        elif method == "environment":
            answer(message, dict(os.environ))
        elif method == "family":
            deaf = lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "1000"], preexec_fn=deaf)
            answer(message, [os.getpid(), child.pid])
        elif method == "exit":
            sys.stdout.flush()
            os._exit(params["code"])
        elif method == "deaf":
            time.sleep(1000)
        elif method == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            answer(message, {})
            for more in iter(sys.stdin.buffer.readline, b""):
                record.write(more)
            time.sleep(1000)


main()
