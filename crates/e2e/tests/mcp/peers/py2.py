"""Holds the conversation of a plan by the package `mcp` of the second generation: see plan.py."""

import os
from contextlib import asynccontextmanager

import httpx2
import plan as plans
from mcp import Client, StdioServerParameters, types
from mcp.client.streamable_http import streamable_http_client

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}


async def sample(_context, _params):
    return types.CreateMessageResult(role="assistant", model="none", content=types.TextContent(type="text", text="so"))


async def elicit(_context, _params):
    return types.ElicitResult(action="accept", content={"name": "Ada", "username": "ada", "email": "ada@example.com"})


async def roots(_context):
    return types.ListRootsResult(roots=[])


class Talk:
    def __init__(self, client):
        self.client = client
        self.server = client.server_info and client.server_info.name
        self.protocol = client.protocol_version

    async def list(self, name, cursor):
        return await getattr(self.client, f"list_{name}")(cursor=cursor)

    async def call(self, call, step):
        if "tool" in call:
            return await self.client.call_tool(call["tool"], call.get("arguments"), progress_callback=step)
        if "prompt" in call:
            return await self.client.get_prompt(call["prompt"], call.get("arguments"))
        return await self.client.read_resource(call["resource"])


@asynccontextmanager
async def connect(plan):
    async with httpx2.AsyncClient(headers=plans.headers(plan), timeout=30) as http:
        if "command" in plan:
            command, *rest = plan["command"]
            server = StdioServerParameters(command=command, args=rest, env=dict(os.environ))
        else:
            server = streamable_http_client(plan["url"], http_client=http)
        callbacks = {"sampling_callback": sample, "elicitation_callback": elicit, "list_roots_callback": roots}
        async with Client(server, mode=MODES[plan.get("era", "auto")], **callbacks) as client:
            yield Talk(client)


plans.main(connect)
