"""Talks to an MCP server over HTTP with the client of the package `mcp`, until a call is refused, and ends the session.

    over_http.py URL        (the key: VKEY_TEST_KEY)

Standard output is one JSON object: what the client saw.
"""

import asyncio
import json
import os
import sys

import httpx2
from mcp import ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client

# More than any quota of the tests allows.
MOST_CALLS = 20


async def converse(url, key):
    saw = {"answers": [], "refusal": None}
    headers = {"authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        streamable_http_client(url, http_client=http) as (read, write),
        ClientSession(read, write) as session,
    ):
        saw["server"] = (await session.initialize()).server_info.name
        for number in range(MOST_CALLS):
            try:
                result = await session.call_tool("echo", {"message": str(number)})
            except MCPError as refusal:
                saw["refusal"] = refusal.message
                break
            saw["answers"].append(result.content[0].text)
    return saw


async def main():
    async with asyncio.timeout(60):
        print(json.dumps(await converse(sys.argv[1], os.environ["VKEY_TEST_KEY"])))


asyncio.run(main())
