import init, { attenuate, mint } from './wasm/write.js';

await init();

export { attenuate, mint };
