"""Sends requests by the client libraries of OpenAI and Anthropic and by gRPC, as their users do, and says what
came of them.

    ask.py < CASES

Standard input is a JSON list of cases: {"client": "openai" | "anthropic" | "grpc", "url", "key", "calls"}, with
"headers" to add, a "host" to name to the gate and, for gRPC, a "method". Standard output is a JSON list with an
object for each: what each call came to, and the seconds that the library decided to wait before it tried again. A
wait that is too long for a test is noted, and not waited.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import local

import anthropic
import grpc
import openai

MAX_WAIT_SECS = 20

here = local()
sleep = time.sleep


def wait(secs):
    """Takes the place of `time.sleep`."""
    waits = getattr(here, "waits", None)
    if waits is None:
        return sleep(secs)
    waits.append(secs)
    if secs <= MAX_WAIT_SECS:
        sleep(secs)


def ask_openai(case):
    headers = case.get("headers", {}) | ({"host": case["host"]} if "host" in case else {})
    client = openai.OpenAI(base_url=case["url"], api_key=case["key"], default_headers=headers)
    messages = [{"role": "user", "content": "hello"}]
    return library_call(openai, lambda: client.chat.completions.with_raw_response.create(model="m", messages=messages))


def ask_anthropic(case):
    headers = case.get("headers", {}) | ({"host": case["host"]} if "host" in case else {})
    client = anthropic.Anthropic(base_url=case["url"], api_key=case["key"], default_headers=headers)
    messages = [{"role": "user", "content": "hello"}]
    return library_call(
        anthropic, lambda: client.messages.with_raw_response.create(model="m", max_tokens=1, messages=messages)
    )


def library_call(library, call):
    try:
        return call().status_code
    except library.APIStatusError as error:
        return error.status_code


def ask_grpc(case):
    options = [("grpc.default_authority", case["host"])] if "host" in case else []
    with grpc.insecure_channel(case["url"], options=options) as channel:
        call = channel.unary_unary(case["method"])
        metadata = [("authorization", f"Bearer {case['key']}"), *case.get("headers", {}).items()]
        try:
            call(b"", metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            metadata = {name: value for name, value in error.initial_metadata() + error.trailing_metadata()}
            return {"code": error.code().name, "details": error.details(), "metadata": metadata}
    return {"code": "OK"}


CLIENTS = {"openai": ask_openai, "anthropic": ask_anthropic, "grpc": ask_grpc}


def ask(case):
    here.waits = []
    calls = [CLIENTS[case["client"]](case) for _ in range(case["calls"])]
    return {"calls": calls, "waits": here.waits}


if __name__ == "__main__":
    time.sleep = wait
    cases = json.load(sys.stdin)
    with ThreadPoolExecutor(len(cases)) as pool:
        json.dump(list(pool.map(ask, cases)), sys.stdout)
