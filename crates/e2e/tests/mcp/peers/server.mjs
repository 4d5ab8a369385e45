// node server.mjs [stdio]: an MCP server on the npm SDK, with all that the conformance suites ask for. It serves /mcp
// on a free port of this machine alone, and writes the port to standard output; or it serves standard input and output.
//
// Revisions up to 2025-11-25 have sessions, 2026-07-28 has none. Packages: VKEY_TEST_MCP_PEERS.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { load } from "./packages.mjs";
import { prompts, resources, templates, tools } from "./offers.mjs";
import { states } from "./states.mjs";

const { McpServer, ResourceTemplate, createMcpHandler, fromJsonSchema, isLegacyRequest } = load(
  "@modelcontextprotocol/server",
);
const node = load("@modelcontextprotocol/node");

const capabilities = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
  logging: {},
  completions: {},
};

/** A server for one session, or for one request of the revision without sessions. */
function offer() {
  const options = { capabilities, requestState: { verify: states.verify } };
  const server = new McpServer({ name: "vkey-test-server", version: "1.0.0" }, options);
  for (const [name, { schema = { type: "object" }, run }] of Object.entries(tools)) {
    server.registerTool(name, { description: name, inputSchema: fromJsonSchema(schema) }, (args, context) =>
      run(args, { ...context, notify: modern.notify }),
    );
  }
  for (const [name, { required = [], get }] of Object.entries(prompts)) {
    const properties = Object.fromEntries(required.map((argument) => [argument, { type: "string" }]));
    const argsSchema = fromJsonSchema({ type: "object", properties, required });
    if (required.length) server.registerPrompt(name, { description: name, argsSchema }, get);
    else server.registerPrompt(name, { description: name }, (context) => get({}, context));
  }
  for (const [uri, content] of Object.entries(resources)) {
    const read = () => ({ contents: [{ uri, ...content }] });
    server.registerResource(uri, uri, { mimeType: content.mimeType }, read);
  }
  for (const [uri, read] of Object.entries(templates)) {
    const template = new ResourceTemplate(uri, { list: undefined });
    server.registerResource(uri, template, {}, (asked, variables) => ({ contents: [read(asked.href, variables)] }));
  }
  const { server: messages } = server;
  messages.setRequestHandler("completion/complete", () => ({ completion: { values: [], total: 0, hasMore: false } }));
  for (const method of ["resources/subscribe", "resources/unsubscribe"]) {
    messages.setRequestHandler(method, () => ({}));
  }
  return server;
}

const modern = createMcpHandler(offer, { legacy: "reject" });
const serveModern = node.toNodeHandler(modern);

/** The events of one session, for a client that comes back for them. */
class Events {
  stored = [];

  async storeEvent(stream, message) {
    return `${this.stored.push({ stream, message }) - 1}`;
  }

  async getStreamIdForEventId(id) {
    return this.stored[id]?.stream;
  }

  async replayEventsAfter(id, { send }) {
    const stream = this.stored[id]?.stream;
    for (const [at, event] of this.stored.entries()) {
      if (at > Number(id) && event.stream === stream && event.message.jsonrpc) await send(`${at}`, event.message);
    }
    return stream;
  }
}

const sessions = new Map();

async function beginSession() {
  const transport = new node.NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new Events(),
    retryInterval: 500,
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
  });
  await offer().connect(transport);
  return transport;
}

async function serveLegacy(request, response, body) {
  const id = request.headers["mcp-session-id"];
  const transport = id === undefined ? await beginSession() : sessions.get(id);
  if (transport) return transport.handleRequest(request, response, body);
  const error = { code: -32001, message: "Session not found" };
  response.writeHead(404, { "content-type": "application/json" });
  response.end(JSON.stringify({ jsonrpc: "2.0", id: null, error }));
}

/** The message, or undefined where there is none that can be read. */
async function messageOf(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  try {
    return JSON.parse(Buffer.concat(pieces).toString());
  } catch {
    return undefined;
  }
}

const checks = [node.localhostHostValidation(), node.localhostOriginValidation()];

const http = createServer(async (request, response) => {
  if (!checks.every((check) => check(request, response))) return;
  const message = await messageOf(request);
  if (request.method === "POST" && message === undefined) {
    const error = { code: -32700, message: "Parse error" };
    response.writeHead(400, { "content-type": "application/json" });
    return response.end(JSON.stringify({ jsonrpc: "2.0", id: null, error }));
  }
  const legacy = await isLegacyRequest(await node.toWebRequest(request, message), message);
  return legacy ? serveLegacy(request, response, message) : serveModern(request, response, message);
});

if (process.argv[2] === "stdio") load("@modelcontextprotocol/server/stdio").serveStdio(offer);
else http.listen(0, "127.0.0.1", () => console.log(http.address().port));
