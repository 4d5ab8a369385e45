// Runs a test binary for wasm32-wasip1 in Node: wasi-runner.mjs BINARY [ARGUMENTS]. It sees the folder that it is run in,
// and the one above.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const args = process.argv.slice(2);
const preopens = { ".": ".", "..": ".." };
const wasi = new WASI({ version: "preview1", args, env: process.env, preopens, returnOnExit: true });
const module = await WebAssembly.compile(await readFile(args[0]));
process.exitCode = wasi.start(await WebAssembly.instantiate(module, wasi.getImportObject()));
