"""Talks to a provider by the client libraries of OpenAI, Anthropic and Google, as their users do, and says what they
saw.

    llm.py < CASES

Standard input is a JSON list of cases: {"client": "openai" | "anthropic" | "google", "url", "key", "call"}. The calls
of each client are named in CALLS. Standard output is a JSON list with an object for each case: what the library
returned, event by event, or the error that it raised, and the seconds that it decided to wait before it tried again.
A wait that is too long for a test is noted, and not waited.
"""

import json
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import local

import anthropic
import google.genai
import google.genai.errors
import openai

MAX_WAIT_SECS = 2
MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Name three rivers."}]
TOOL = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

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


def dump(value):
    return value.model_dump(mode="json", exclude_unset=True)


def openai_client(case):
    return openai.OpenAI(base_url=case["url"] + "/v1", api_key=case["key"])


def chat(client, **more):
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, **more)


def openai_tools(client):
    tool = {"type": "function", "function": {"name": "weather", "parameters": TOOL}}
    return [dump(event) for event in chat(client, stream=True, tools=[tool])]


def anthropic_client(case):
    return anthropic.Anthropic(base_url=case["url"], api_key=case["key"])


def messages(client, **more):
    return client.messages.create(model="claude-sonnet-4-5", max_tokens=256, messages=MESSAGES, **more)


def anthropic_helper(client):
    """The helper that puts a message together from its events."""
    with client.messages.stream(model="claude-sonnet-4-5", max_tokens=256, messages=MESSAGES) as stream:
        return ["".join(stream.text_stream), dump(stream.get_final_message())]


def google_client(case):
    return google.genai.Client(api_key=case["key"], http_options={"base_url": case["url"]})


def generate(client, method):
    return getattr(client.models, method)(model="gemini-2.5-flash", contents="Name three rivers.")


def google_dump(value):
    """Without the headers of the response, which have times."""
    return value.model_dump(mode="json", exclude_none=True, exclude={"sdk_http_response"})


CALLS = {
    "openai": {
        "chat": lambda client: dump(chat(client)),
        "chat_stream": lambda client: [dump(event) for event in chat(client, stream=True)],
        "chat_stream_usage": lambda client: [
            dump(event) for event in chat(client, stream=True, stream_options={"include_usage": True})
        ],
        "chat_stream_no_usage": lambda client: [
            dump(event) for event in chat(client, stream=True, stream_options={"include_usage": False})
        ],
        "tools_stream": openai_tools,
        "responses": lambda client: dump(client.responses.create(model=MODEL, input="Name three rivers.")),
        "responses_stream": lambda client: [
            dump(event) for event in client.responses.create(model=MODEL, input="Name three rivers.", stream=True)
        ],
        "embeddings": lambda client: dump(
            client.embeddings.create(model="text-embedding-3-small", input="rivers", encoding_format="float")
        ),
    },
    "anthropic": {
        "messages": lambda client: dump(messages(client)),
        "messages_stream": lambda client: [dump(event) for event in messages(client, stream=True)],
        "messages_helper": anthropic_helper,
        "count_tokens": lambda client: dump(
            client.messages.count_tokens(model="claude-sonnet-4-5", messages=MESSAGES)
        ),
    },
    "google": {
        "generate": lambda client: google_dump(generate(client, "generate_content")),
        "generate_stream": lambda client: [google_dump(part) for part in generate(client, "generate_content_stream")],
        "count_tokens": lambda client: google_dump(generate(client, "count_tokens")),
    },
}

MAKE = {"openai": openai_client, "anthropic": anthropic_client, "google": google_client}


def error_of(error):
    """A typed error: its class, and the members that programs look at."""
    members = {name: getattr(error, name, None) for name in ("status_code", "code", "type", "status", "message")}
    known = {name: value for name, value in members.items() if isinstance(value, (str, int))}
    return {"class": type(error).__name__} | known


def ask(case):
    here.waits = []
    try:
        came = {"result": CALLS[case["client"]][case["call"]](MAKE[case["client"]](case))}
    except (openai.APIError, anthropic.APIError, google.genai.errors.APIError) as error:
        came = {"error": error_of(error)}
    return came | {"waits": here.waits}


def main():
    time.sleep = wait
    # The names of models age; the responses are replayed.
    warnings.simplefilter("ignore", DeprecationWarning)
    cases = json.load(sys.stdin)
    with ThreadPoolExecutor(max_workers=8) as pool:
        json.dump(list(pool.map(ask, cases)), sys.stdout)


if __name__ == "__main__":
    main()
