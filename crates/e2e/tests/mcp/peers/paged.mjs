// node paged.mjs: an MCP server on the npm SDK whose lists come in pages, one of which is empty, without sessions. It
// serves /mcp on a free port of this machine alone, and writes the port to standard output.
import { createServer } from "node:http";

import { load } from "./packages.mjs";

const { Server, createMcpHandler } = load("@modelcontextprotocol/server");
const { toNodeHandler } = load("@modelcontextprotocol/node");

const PAGES = [2, 0, 3, 1];
const LISTS = {
  "tools/list": ["tools", (name) => ({ name, inputSchema: { type: "object" } })],
  "prompts/list": ["prompts", (name) => ({ name })],
  "resources/list": ["resources", (name) => ({ name, uri: `test://${name}` })],
  "resources/templates/list": ["resourceTemplates", (name) => ({ name, uriTemplate: `test://${name}/{id}` })],
};

/** Items are numbered over all pages: item0, item1 and so on. */
function page(number, item) {
  const first = PAGES.slice(0, number).reduce((sum, length) => sum + length, 0);
  return Array.from({ length: PAGES[number] }, (_, at) => item(`item${first + at}`));
}

function offer() {
  const capabilities = { tools: {}, prompts: {}, resources: {} };
  const server = new Server({ name: "vkey-paged-server", version: "1.0.0" }, { capabilities });
  for (const [method, [member, item]] of Object.entries(LISTS)) {
    server.setRequestHandler(method, ({ params }) => {
      const number = Number(params?.cursor ?? 0);
      const more = number + 1 < PAGES.length && { nextCursor: `${number + 1}` };
      return { [member]: page(number, item), ...more };
    });
  }
  server.setRequestHandler("tools/call", ({ params }) => ({ content: [{ type: "text", text: params.name }] }));
  server.setRequestHandler("prompts/get", ({ params }) => ({
    messages: [{ role: "user", content: { type: "text", text: params.name } }],
  }));
  server.setRequestHandler("resources/read", ({ params }) => ({ contents: [{ uri: params.uri, text: params.uri }] }));
  return server;
}

const http = createServer(toNodeHandler(createMcpHandler(offer)));
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
