// What the server lets its clients keep between two rounds of a call, sealed.
import { randomBytes } from "node:crypto";

import { load } from "./packages.mjs";

const { createRequestStateCodec } = load("@modelcontextprotocol/server");

export const states = createRequestStateCodec({ key: randomBytes(32) });
