"""An MCP server that does what it is told: what it reads goes to the file given, byte for byte."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

out = sys.stdout.buffer
record = open(sys.argv[1], "ab", 0)


lock = threading.Lock()


def say(message):
    text = (message if isinstance(message, str) else encoded(message)).encode()
    with lock:
        out.write(text)
        out.flush()


def encoded(message):
    text = json.dumps(message, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair is JSON only as an escape
        text = json.dumps(message) + "\n"
    return text


def beat(message):
    while True:
        say(message)
        time.sleep(0.1)


def ask(id):
    say({"jsonrpc": "2.0", "id": id, "method": "roots/list"})


def answer(message, result):
    say({"jsonrpc": "2.0", "id": message["id"], "result": result})


def main():
    held, asking = [], {}
    for line in iter(sys.stdin.buffer.readline, b""):
        record.write(line)
        message = json.loads(line)
        method, params = message.get("method"), message.get("params") or {}
        if method is None and message["id"] in asking:
            answer(asking.pop(message["id"]), message)
        elif method == "initialize":
            answer(message, {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}})
        elif "texts" in params and method != "ask_badly":  # as it is, line ends too
            for text in params["texts"]:
                say(text)
        elif method == "echo" or (method or "").startswith(("tools/", "resources/")):
            answer(message, params)
        elif method == "fill":
            say('{"jsonrpc":"2.0","id":%s,"result":"%s"}\n' % (json.dumps(message["id"]), "x" * params["bytes"]))
        elif method == "late":  # also after the end of its input
            threading.Timer(params["seconds"], answer, [message, {}]).start()
        elif method == "hold":
            held.append(message)
        elif method == "notifications/release":  # last in, first out
            for one in reversed(held):
                answer(one, one["params"])
            held.clear()
        elif method == "ask":  # the client; what it answers is the answer
            asking[params["id"]] = message
            ask(params["id"])
        elif method == "ask_badly":  # one is no JSON, another one too long
            whole, start, end = params["texts"]
            say(whole + start + "x" * params["bytes"] + end)
            answer(message, {})
        elif method == "ask_later":
            answer(message, {})
            ask(params["id"])
        elif method == "notifications/beat":  # ten times a second, for ever
            threading.Thread(target=beat, args=[params["message"]], daemon=True).start()
        elif method == "shout":  # on standard error
            sys.stderr.write((params["text"] + "\n") * params["times"])
            sys.stderr.flush()
            answer(message, {})
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
