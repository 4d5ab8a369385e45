"""HTTP/1.1 over TLS 1.1 and nothing newer: python3 old.py CERTIFICATE KEY FAILURES.

Prints one line per event: "listening PORT", "accepted PORT", "handshake", "bytes COUNT", "request HEAD" (in JSON) and
"closed". Ends when its standard input does.
"""
import json
import socket
import ssl
import sys
import threading
import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # of the old version, which is the purpose here
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.set_ciphers("ALL:@SECLEVEL=0")
context.minimum_version = ssl.TLSVersion.TLSv1_1
context.maximum_version = ssl.TLSVersion.TLSv1_1
context.load_cert_chain(sys.argv[1], sys.argv[2])
failures = int(sys.argv[3])
lock = threading.Lock()


def say(event):
    with lock:
        print(event, flush=True)


def status():
    global failures
    with lock:
        failures -= 1
        return "503 Failed" if failures >= 0 else "200 OK"


def requests(stream):
    unread = b""
    while True:
        while b"\r\n\r\n" not in unread:
            received = stream.recv(16384)
            if not received:
                return
            say(f"bytes {len(received)}")
            unread += received
        head, unread = unread.split(b"\r\n\r\n", 1)
        lines = [line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:]]
        fields = {line[0]: line[1] for line in lines}
        end = lambda: b"0\r\n\r\n" in unread
        length = int(fields.get(b"content-length", 0))
        if b"transfer-encoding" not in fields:
            end = lambda: len(unread) >= length
        while not end():
            received = stream.recv(16384)
            if not received:
                return
            say(f"bytes {len(received)}")
            unread += received
        unread = b""
        say("request " + json.dumps(head.decode() + "\r\n\r\n"))
        answer = f"HTTP/1.1 {status()}\r\ncontent-length: {len(head)}\r\n\r\n".encode()
        stream.sendall(answer + head)


def serve(stream):
    try:
        with context.wrap_socket(stream, server_side=True) as secure:
            say("handshake")
            requests(secure)
    except OSError:
        pass  # the client has closed or refused the connection
    finally:
        stream.close()
        say("closed")


def accept(listener):
    while True:
        stream, peer = listener.accept()
        say(f"accepted {peer[1]}")
        threading.Thread(target=serve, args=(stream,), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
say(f"listening {listener.getsockname()[1]}")
threading.Thread(target=accept, args=(listener,), daemon=True).start()
sys.stdin.read()
