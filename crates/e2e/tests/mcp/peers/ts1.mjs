// Holds the conversation of a plan by the npm SDK of the first generation: see plan.mjs.
import { load } from "./packages.mjs";
import { capabilities, elicited, main, sampled, transport } from "./plan.mjs";

const SDK = "@modelcontextprotocol/sdk";
const { Client } = load(`${SDK}/client/index.js`);
const types = load(`${SDK}/types.js`);
const transports = { ...load(`${SDK}/client/streamableHttp.js`), ...load(`${SDK}/client/stdio.js`) };

async function connect(plan) {
  const client = new Client({ name: "ts1", version: "1.0.0" }, { capabilities });
  client.setRequestHandler(types.CreateMessageRequestSchema, () => sampled);
  client.setRequestHandler(types.ElicitRequestSchema, () => elicited);
  client.setRequestHandler(types.ListRootsRequestSchema, () => ({ roots: [] }));
  const wire = transport(plan, transports);
  let protocol;
  // The client tells its transport alone.
  const tell = wire.setProtocolVersion?.bind(wire);
  wire.setProtocolVersion = (version) => {
    protocol = version;
    tell?.(version);
  };
  await client.connect(wire);
  return { client, protocol };
}

await main(connect, (client, params, options) => client.callTool(params, undefined, options));
