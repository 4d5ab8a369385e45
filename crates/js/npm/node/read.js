import { readFileSync } from 'node:fs';

import { explain, inspect, initSync } from '../wasm/read.js';

initSync({ module: readFileSync(new URL('../wasm/read_bg.wasm', import.meta.url)) });

export { explain, inspect };
