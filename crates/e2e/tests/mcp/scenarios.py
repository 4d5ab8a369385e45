"""The conversations. Each takes an open session and the arguments, and returns what it saw."""

import asyncio
import json
import os
import time
from pathlib import Path

from mcp import MCPError

# Under the 10 MiB that the server's buffer holds, with what is around the text.
LARGE = 10_000_000
LONG = "trigger-long-running-operation"


def text_of(result):
    """The one text that a tool answers with."""
    [content] = result.content
    return content.text


def error_of(refusal):
    return {"code": refusal.code, "message": refusal.message, "data": refusal.data}


async def echo(session, message):
    return text_of(await session.call_tool("echo", {"message": message}))


async def refusal_of(call):
    """The error that a call is answered with, or None where it is answered."""
    try:
        await call
    except MCPError as refusal:
        return error_of(refusal)
    return None


async def conversation(session, _arguments):
    """Everything that a client does with a server, in one session."""
    return (
        await introduce(session)
        | await cancel(session)
        | await call_tools(session)
        | await follow_progress(session)
        | await fail(session)
        | {"environment": await environment(session)}
    )


async def introduce(session):
    initialized = await session.initialize()
    tools = await session.list_tools()
    prompts = await session.list_prompts()
    resources = await session.list_resources()
    return {
        "server": initialized.server_info.name,
        "protocol": initialized.protocol_version,
        "tools": sorted(tool.name for tool in tools.tools),
        "prompts": sorted(prompt.name for prompt in prompts.prompts),
        "resources": len(resources.resources),
    }


async def call_tools(session):
    sampled = await session.call_tool("trigger-sampling-request", {"prompt": "who is there?"})
    return {
        "echo": await echo(session, "a text, «quoted» — \"so\" \\ and \u2028 so"),
        "sum": text_of(await session.call_tool("get-sum", {"a": 2, "b": 40})),
        "sampled": text_of(sampled),
    }


async def follow_progress(session):
    """A call that takes longer than what is left of the one that was given up: the server is idle afterwards."""
    steps = []

    async def step(progress, total, _message):
        steps.append([progress, total])

    result = await session.call_tool(LONG, {"duration": 2.5, "steps": 5}, progress_callback=step)
    await session.send_ping()
    return {"progress": steps, "long": text_of(result)}


async def begin_long_call(session, seconds):
    """A call that is under way: the server has said so. It makes ten steps a second."""
    begun = asyncio.Event()

    async def step(*_):
        begun.set()

    arguments = {"duration": seconds, "steps": seconds * 10}
    call = asyncio.create_task(session.call_tool(LONG, arguments, progress_callback=step))
    call.add_done_callback(lambda _: begun.set())
    await begun.wait()
    if call.done():
        await call
    return call


async def cancel(session):
    """Gives a call up, which the client tells the server; what comes after it is answered."""
    call = await begin_long_call(session, 2)
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        pass
    await session.send_ping()
    return {"cancelled": call.cancelled(), "after_cancel": await echo(session, "still here")}


async def fail(session):
    """An error of the server's own comes through as it is."""
    return {"failure": await refusal_of(session.get_prompt("no-such-prompt"))}


async def environment(session):
    """Names of the variables that the server can see."""
    shown = await session.call_tool("get-env", {})
    return sorted(json.loads(text_of(shown)))


async def limited(session, _arguments):
    """A key whose limit is used up by the call in the middle of which the server asks."""
    await session.initialize()
    await session.list_tools()
    sampled = await session.call_tool("trigger-sampling-request", {"prompt": "who is there?"})
    return {"sampled": text_of(sampled), "refusal": await refusal_of(session.send_ping())}


async def expires(session, arguments):
    """Calls a tool until the key expires, and then some more."""
    await introduce(session)
    answered, first = await echo_until_refused(session, arguments.until)
    more = [await refusal_of(echo(session, "more")), await refusal_of(session.send_ping())]
    return {"answered": answered, "refusal": first, "more": more, "alive": is_server_alive()}


async def echo_until_refused(session, until):
    """How many calls were answered, and how the first was refused that ended after `until`."""
    answered = 0
    while True:
        begun = time.time()
        refusal = await refusal_of(echo(session, f"call {answered}"))
        if refusal and time.time() < until:
            raise AssertionError(f"refused {until - time.time():.3f} s too early: {refusal}")
        if refusal:
            return answered, refusal
        if begun >= until:
            raise AssertionError(f"answered {begun - until:.3f} s too late")
        answered += 1
        await asyncio.sleep(0.02)


async def large(session, _arguments):
    """A message of ten megabytes, there and back."""
    await introduce(session)
    message = "".join(f"{number:07} " for number in range(LARGE // 8))
    answer = await echo(session, message)
    return {"bytes": len(message), "same": answer == f"Echo: {message}"}


async def abandoned(session, _arguments):
    """Leaves in the middle of a call that keeps the server busy for ten minutes, without a word from it."""
    await introduce(session)
    call = asyncio.create_task(session.call_tool(LONG, {"duration": 600, "steps": 1}))
    # The call goes out while the first answer is waited for: the second tells that the server has it.
    await session.send_ping()
    await session.send_ping()
    under_way = not call.done()
    call.cancel()
    return {"abandoned": under_way}


def is_server_alive():
    """Whether the process that this one has started still runs, and is no zombie."""
    own = os.getpid()
    states = [fields for fields in map(state_and_parent, Path("/proc").glob("[0-9]*/stat")) if fields]
    return any(parent == own and state != "Z" for state, parent in states)


def state_and_parent(stat):
    """The state and the parent of a process, None where it is gone by now."""
    try:
        state, parent = stat.read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return state, int(parent)


SCENARIOS = {scenario.__name__: scenario for scenario in (conversation, limited, expires, large, abandoned)}
