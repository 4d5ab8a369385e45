// The packages of npm that `make` has installed in the folder VKEY_TEST_MCP_PEERS.
import { createRequire } from "node:module";

export const load = createRequire(`${process.env.VKEY_TEST_MCP_PEERS}/package.json`);
