// The packages of npm that `make` has installed where the file VKEY_TEST_MCP_PEERS is.
import { createRequire } from "node:module";

export const load = createRequire(process.env.VKEY_TEST_MCP_PEERS);
