#!/usr/bin/env node
// The linker of the module. It exports the callbacks that the module has functions of its own for: `vkey_on_X` takes the
// place of the SDK's `proxy_on_X`. The SDK's others find no context and trap, and each would cost every request a call.
// They are not exported, so the linker removes them, and the host calls that only they use. A module without such functions (the no-op
// module of `make bench`) is linked as it is.

import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";

const EXPORT_SECTION = 7;
const HEADER_BYTES = 8;
const OWN = /^vkey_on_/;
const OF_THE_SDK = /^proxy_on_/;

// === linking ===

function withoutSdkExports(options) {
  if (!options.some((option) => OWN.test(option))) return options;
  const isOfTheSdk = (at) => options[at] === "--export" && OF_THE_SDK.test(options[at + 1]);
  return options.filter((_, at) => !isOfTheSdk(at) && !isOfTheSdk(at - 1));
}

function rustc(...options) {
  return execFileSync(process.env.RUSTC ?? "rustc", options, { encoding: "utf8" });
}

function linker() {
  const host = /^host: (.+)$/m.exec(rustc("-vV"))[1];
  return `${rustc("--print", "sysroot").trim()}/lib/rustlib/${host}/bin/rust-lld`;
}

// === the export section ===

function numberBytes(number) {
  return number < 0x80 ? [number] : [(number & 0x7f) | 0x80, ...numberBytes(number >>> 7)];
}

function reader(bytes, at) {
  const byte = () => bytes[at++];
  const number = () => {
    const low = byte();
    return low < 0x80 ? low : (low & 0x7f) + 0x80 * number();
  };
  const take = (length) => bytes.subarray(at, (at += length));
  return { byte, number, take, isAtEnd: () => at >= bytes.length };
}

function renamed(section) {
  const { byte, number, take } = reader(section, 0);
  const count = number();
  const names = new Set();
  const exports = Array.from({ length: count }, () => {
    const name = take(number()).toString("latin1").replace(OWN, "proxy_on_");
    if (names.has(name)) fail(`${name} is exported twice: rustc passes exports in a form that this script does not know`);
    names.add(name);
    return Buffer.from([...numberBytes(name.length), ...Buffer.from(name, "latin1"), byte(), ...numberBytes(number())]);
  });
  return Buffer.concat([Buffer.from(numberBytes(count)), ...exports]);
}

function withRenamedExports(module) {
  const { byte, number, take, isAtEnd } = reader(module, HEADER_BYTES);
  const parts = [module.subarray(0, HEADER_BYTES)];
  while (!isAtEnd()) {
    const id = byte();
    const section = take(number());
    const content = id === EXPORT_SECTION ? renamed(section) : section;
    parts.push(Buffer.from([id, ...numberBytes(content.length)]), content);
  }
  return Buffer.concat(parts);
}

function fail(text) {
  console.error(`link-wasm: ${text}`);
  process.exit(1);
}

const options = process.argv.slice(2);
// The linker has said what is wrong.
const { status, error } = spawnSync(linker(), withoutSdkExports(options), { stdio: "inherit" });
if (error) fail(error.message);
if (status !== 0) process.exit(status ?? 1);
const output = options[options.lastIndexOf("-o") + 1];
writeFileSync(output, withRenamedExports(readFileSync(output)));
