// A conversation with an MCP server, as a plan says: plan.py describes the plan and what comes of it.
import { text } from "node:stream/consumers";

const CALL_TIMEOUT_MS = 10_000;
const MAX_PAGES = 100;
const LISTS = {
  tools: ["listTools", "tools"],
  resources: ["listResources", "resources"],
  resource_templates: ["listResourceTemplates", "resourceTemplates"],
  prompts: ["listPrompts", "prompts"],
};

export const sampled = { role: "assistant", model: "none", content: { type: "text", text: "so" } };
export const elicited = { action: "accept", content: { name: "Ada", username: "ada", email: "ada@example.com" } };
export const capabilities = { sampling: {}, elicitation: {}, roots: {} };

const errorOf = ({ constructor, code, message, data }) => ({
  class: constructor.name,
  code: code ?? null,
  message,
  data: data ?? null,
});

async function tried(work) {
  try {
    return { result: await work() };
  } catch (raised) {
    return { error: errorOf(raised) };
  }
}

/** All items of a list, and how many pages they came in. */
async function pages(client, [method, member]) {
  const items = [];
  let cursor;
  let page = 0;
  do {
    const listed = await client[method](cursor ? { cursor } : undefined, { timeout: CALL_TIMEOUT_MS });
    items.push(...listed[member]);
    cursor = listed.nextCursor;
    page += 1;
  } while (cursor !== undefined && page < MAX_PAGES);
  return { pages: page, items };
}

async function make(client, callTool, call) {
  const steps = [];
  const options = { timeout: CALL_TIMEOUT_MS };
  if (call.progress) options.onprogress = ({ progress, total }) => steps.push([progress, total]);
  const { arguments: given } = call;
  const came = await tried(() => {
    if (call.tool) return callTool(client, { name: call.tool, arguments: given }, options);
    if (call.prompt) return client.getPrompt({ name: call.prompt, arguments: given }, options);
    return client.readResource({ uri: call.resource }, options);
  });
  return steps.length ? { ...came, progress: steps.slice(0, 2) } : came;
}

/** `connect(plan)` opens a session: a client, and its protocol version. `callTool(client, params, options)` calls. */
export async function main(connect, callTool) {
  const plan = JSON.parse(await text(process.stdin));
  const saw = { calls: [] };
  try {
    const { client, protocol } = await connect(plan);
    saw.server = client.getServerVersion()?.name;
    saw.protocol = protocol;
    saw.lists = {};
    for (const [name, list] of Object.entries(LISTS)) saw.lists[name] = await tried(() => pages(client, list));
    for (const call of plan.calls) saw.calls.push(await make(client, callTool, call));
    await client.close();
  } catch (raised) {
    saw.fatal = errorOf(raised);
  }
  console.log(JSON.stringify(saw));
}

/** What a transport over HTTP, or one that starts a command, is made of. */
export function transport(plan, { StreamableHTTPClientTransport, StdioClientTransport }) {
  if (plan.command) {
    const [command, ...args] = plan.command;
    return new StdioClientTransport({ command, args, env: process.env });
  }
  const headers = plan.key ? { authorization: `Bearer ${plan.key}` } : {};
  return new StreamableHTTPClientTransport(new URL(plan.url), { requestInit: { headers } });
}
