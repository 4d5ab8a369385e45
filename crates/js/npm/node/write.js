import { readFileSync } from 'node:fs';

import { attenuate, mint, initSync } from '../wasm/write.js';

initSync({ module: readFileSync(new URL('../wasm/write_bg.wasm', import.meta.url)) });

export { attenuate, mint };
