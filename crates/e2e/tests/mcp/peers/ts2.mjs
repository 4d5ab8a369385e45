// Holds the conversation of a plan by the npm SDK of the second generation: see plan.mjs.
import { load } from "./packages.mjs";
import { capabilities, elicited, main, sampled, transport } from "./plan.mjs";

const SDK = "@modelcontextprotocol/client";
const { Client, StreamableHTTPClientTransport } = load(SDK);
const { StdioClientTransport } = load(`${SDK}/stdio`);
const MODES = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };

async function connect(plan) {
  const versionNegotiation = { mode: MODES[plan.era ?? "auto"] };
  const client = new Client({ name: "ts2", version: "1.0.0" }, { capabilities, versionNegotiation });
  client.setRequestHandler("sampling/createMessage", () => sampled);
  client.setRequestHandler("elicitation/create", () => elicited);
  client.setRequestHandler("roots/list", () => ({ roots: [] }));
  await client.connect(transport(plan, { StreamableHTTPClientTransport, StdioClientTransport }));
  return { client, protocol: client.getNegotiatedProtocolVersion() };
}

await main(connect, (client, params, options) => client.callTool(params, options));
