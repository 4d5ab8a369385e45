"""A conversation with an MCP server, as a plan says, that any client library can hold.

The plan is JSON on standard input:

    {"url": URL, "key": KEY, "command": [WORD, ...], "era": "legacy" | "auto" | "modern", "calls": [CALL, ...]}
    CALL: {"tool": NAME, "arguments": {...}, "progress": true} | {"prompt": NAME, "arguments": {...}}
        | {"resource": URI}

either `url`, with or without `key`, or `command` for a server on standard input and output. Standard output is one JSON
object: `server`, `protocol`, the lists with all their pages, and `calls`: for each a `result`, or an `error` with its
`class`, `code`, `message` and `data`; and the first steps of its `progress` where that is asked for, because libraries
lose what comes right before the result. What ended the session before its end is `fatal`. Nothing in it depends on the
time.
"""

import asyncio
import json
import sys

CALL_TIMEOUT_SECS = 10
WHOLE_TIMEOUT_SECS = 90
LISTS = ["tools", "resources", "resource_templates", "prompts"]
MAX_PAGES = 100


def error_of(raised):
    """What an exception says, of whatever library it is; the first of a group."""
    while isinstance(raised, BaseExceptionGroup):
        raised = raised.exceptions[0]
    told = getattr(raised, "error", None)
    return {
        "class": type(raised).__name__,
        "code": getattr(told, "code", None),
        "message": getattr(told, "message", str(raised)),
        "data": getattr(told, "data", None),
    }


def dump(value):
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


async def pages(client, name):
    """All items of a list, and how many pages they came in."""
    items, cursor = [], None
    for page in range(1, MAX_PAGES):
        listed = dump(await client.list(name, cursor))
        [found] = [member for member in listed.values() if isinstance(member, list)]
        items += found
        cursor = listed.get("nextCursor")
        if cursor is None:
            break
    return {"pages": page, "items": items}


async def tried(work):
    """What the work comes to, or the error."""
    try:
        async with asyncio.timeout(CALL_TIMEOUT_SECS):
            return {"result": await work}
    except Exception as raised:
        return {"error": error_of(raised)}


async def make(client, call):
    steps = []

    async def step(progress, total, _message):
        steps.append([progress, total])

    async def work():
        return dump(await client.call(call, step if call.get("progress") else None))

    return await tried(work()) | ({"progress": steps[:2]} if steps else {})


async def converse(connect, plan, saw):
    async with connect(plan) as client:
        saw["server"], saw["protocol"] = client.server, client.protocol
        saw["lists"] = {name: await tried(pages(client, name)) for name in LISTS}
        for call in plan["calls"]:
            saw["calls"].append(await make(client, call))
        saw["over"] = True


def main(connect):
    """`connect(plan)` opens a session: an object with `server`, `protocol`, `list(name, cursor)` and
    `call(call, step)`."""
    plan, saw = json.load(sys.stdin), {"calls": []}

    async def bounded():
        async with asyncio.timeout(WHOLE_TIMEOUT_SECS):
            await converse(connect, plan, saw)

    try:
        asyncio.run(bounded())
    except (Exception, asyncio.CancelledError) as raised:
        # The first generation raises where a server still has something to say while the client leaves.
        if "over" not in saw:
            saw["fatal"] = error_of(raised)
    print(json.dumps(saw))


def headers(plan):
    return {"authorization": f"Bearer {plan['key']}"} if plan.get("key") else {}
