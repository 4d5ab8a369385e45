"""Drives the MCP client of the package `mcp` through one conversation with the server whose command is given.

    client.py SCENARIO [--timeout SECONDS] [--until UNIX_SECONDS] [--sent FILE] -- COMMAND [ARGUMENT...]

Standard output is one JSON object: what the client saw. Exit 0: the conversation went as scripted, which says
nothing yet about what was seen. 1: it did not, and standard error says where. 3: it was not over in time.
"""

import argparse
import asyncio
import json
import os
import sys
import time
import traceback
from pathlib import Path

from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.types import CreateMessageResult, TextContent
from scenarios import SCENARIOS


class Sent:
    """The stream of the client's messages, each of them noted as it goes by."""

    def __init__(self, stream, copy):
        self.stream = stream
        self.copy = copy
        self.messages = []

    async def send(self, item):
        message = item.message
        self.messages.append({"id": getattr(message, "id", None), "method": getattr(message, "method", None)})
        # What `stdio_client` puts on the pipe.
        line = message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
        await self.stream.send(item)
        self.copy.write(line.encode())

    async def aclose(self):
        await self.stream.aclose()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.aclose()


async def sample(_context, params):
    """Answers the server's request for a message with the text it asked about."""
    asked = params.messages[-1].content.text
    return CreateMessageResult(
        role="assistant", model="none", content=TextContent(type="text", text=f"answered: {asked}")
    )


class Heard:
    """What the server sends of its own accord, and what of it is no message at all."""

    def __init__(self):
        self.garbage = []
        self.notifications = []

    async def __call__(self, item):
        if isinstance(item, Exception):
            self.garbage.append(str(item))
        else:
            self.notifications.append(getattr(item, "method", type(item).__name__))


async def converse(arguments, copy):
    """Runs the scenario, then closes the session as a client does that has no more to say."""
    command, *rest = arguments.command
    server = StdioServerParameters(command=command, args=rest, env=dict(os.environ))
    heard = Heard()
    async with stdio_client(server) as (read, write):
        sent = Sent(write, copy)
        async with ClientSession(read, sent, sampling_callback=sample, message_handler=heard) as session:
            saw = await SCENARIOS[arguments.scenario](session, arguments)
        closing = time.monotonic()
    return saw | {
        "sent": sent.messages,
        "garbage": heard.garbage,
        "notifications": heard.notifications,
        "closing_seconds": round(time.monotonic() - closing, 3),
    }


def parse(words):
    """What is wanted. All that follows the first `--` is the server's command, another `--` in it included."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--timeout", type=float, default=60, help="seconds for all of it")
    parser.add_argument("--until", type=float, help="when the key expires, Unix seconds (expires)")
    parser.add_argument("--sent", default=os.devnull, help="file for the bytes that the client sends")
    own, _, command = partition(words, "--")
    arguments = parser.parse_args(own)
    arguments.command = command
    if not command:
        parser.error("a command is wanted, after --")
    if arguments.scenario == "expires" and arguments.until is None:
        parser.error("expires needs --until")
    return arguments


def partition(words, mark):
    """As `str.partition`, for lists."""
    at = words.index(mark) if mark in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]


async def bounded(arguments):
    with Path(arguments.sent).open("wb") as copy:
        async with asyncio.timeout(arguments.timeout):
            return await converse(arguments, copy)


def main():
    arguments = parse(sys.argv[1:])
    try:
        saw = asyncio.run(bounded(arguments))
    except TimeoutError:
        print(f"client: {arguments.scenario} was not over after {arguments.timeout} s", file=sys.stderr)
        return 3
    except Exception:
        traceback.print_exc()
        return 1
    print(json.dumps(saw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
