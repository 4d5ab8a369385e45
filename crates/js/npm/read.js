import init, { explain, inspect } from './wasm/read.js';

await init();

export { explain, inspect };
