"""Holds the conversation of a plan by the package `mcp` of the first generation: see plan.py."""

import os
from contextlib import asynccontextmanager

import httpx
import plan as plans
from mcp import ClientSession, StdioServerParameters, stdio_client, types
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl


async def sample(_context, _params):
    return types.CreateMessageResult(role="assistant", model="none", content=types.TextContent(type="text", text="so"))


async def elicit(_context, _params):
    return types.ElicitResult(action="accept", content={"name": "Ada", "username": "ada", "email": "ada@example.com"})


async def roots(_context):
    return types.ListRootsResult(roots=[])


class Client:
    def __init__(self, session, initialized):
        self.session = session
        self.server = initialized.serverInfo.name
        self.protocol = initialized.protocolVersion

    async def list(self, name, cursor):
        params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
        return await getattr(self.session, f"list_{name}")(params=params)

    async def call(self, call, step):
        if "tool" in call:
            return await self.session.call_tool(call["tool"], call.get("arguments"), progress_callback=step)
        if "prompt" in call:
            return await self.session.get_prompt(call["prompt"], call.get("arguments"))
        return await self.session.read_resource(AnyUrl(call["resource"]))


@asynccontextmanager
async def streams(plan):
    if "command" in plan:
        command, *rest = plan["command"]
        async with stdio_client(StdioServerParameters(command=command, args=rest, env=dict(os.environ))) as pair:
            yield pair
        return
    async with (
        httpx.AsyncClient(headers=plans.headers(plan), timeout=30) as http,
        streamable_http_client(plan["url"], http_client=http) as (read, write, _session_id),
    ):
        yield read, write


@asynccontextmanager
async def connect(plan):
    async with streams(plan) as (read, write):
        callbacks = {"sampling_callback": sample, "elicitation_callback": elicit, "list_roots_callback": roots}
        async with ClientSession(read, write, **callbacks) as session:
            yield Client(session, await session.initialize())


plans.main(connect)
