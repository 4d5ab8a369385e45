#!/usr/bin/env node
// dep-section.mjs PACKAGE MODULE [CARGO OPTIONS]: appends to a module the list of what it was made of, in the form of
// cargo-auditable (section `.dep-v0`), so that scanners find it in the module alone. The list is not compressed, only
// packed as zlib (RFC 1950) requires: then it is the same bytes with every version of zlib.

import { execFileSync } from "node:child_process";
import { appendFileSync } from "node:fs";

const SECTION = ".dep-v0";
const ADLER_MODULUS = 65521;
const MAX_BLOCK_BYTES = 0xffff;

function tree(name, options) {
  const words = ["tree", "--locked", "--package", name, "--target", "wasm32-wasip1", "--edges", "normal,no-proc-macro"];
  const format = ["--prefix", "depth", "--no-dedupe", "--format", "|{p}"];
  return execFileSync("cargo", [...words, ...format, ...options], { encoding: "utf8" }).trim().split("\n");
}

function packages(name, options) {
  const found = new Map();
  const path = [];
  for (const line of tree(name, options)) {
    const [depth, described] = line.split("|");
    const [crate, version, place] = described.split(" ");
    const key = `${crate} ${version}`;
    const entry = found.get(key) ?? { name: crate, version: version.slice(1), source: place ? "local" : "crates.io", needs: new Set() };
    found.set(key, entry);
    path.length = Number(depth);
    path.at(-1)?.needs.add(entry);
    path.push(entry);
  }
  const order = (a, b) => (`${a.name} ${a.version}` < `${b.name} ${b.version}` ? -1 : 1);
  const sorted = [...found.values()].sort(order);
  return sorted.map(({ name: crate, version, source, needs }) => ({
    name: crate,
    version,
    source,
    ...(needs.size > 0 && { dependencies: [...needs].map((each) => sorted.indexOf(each)).sort((a, b) => a - b) }),
    ...(crate === name && { root: true }),
  }));
}

function adler32(bytes) {
  let [low, high] = [1, 0];
  for (const byte of bytes) {
    low = (low + byte) % ADLER_MODULUS;
    high = (high + low) % ADLER_MODULUS;
  }
  return ((high << 16) | low) >>> 0;
}

// One block that is stored as it is (RFC 1951, section 3.2.4).
function stored(bytes) {
  if (bytes.length > MAX_BLOCK_BYTES) throw new Error("dep-section: the list is too long for one block");
  const head = Buffer.from([0x78, 0x01, 1, 0, 0, 0, 0]);
  head.writeUInt16LE(bytes.length, 3);
  head.writeUInt16LE(~bytes.length & 0xffff, 5);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(adler32(bytes));
  return Buffer.concat([head, bytes, sum]);
}

function number(value) {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...number(value >>> 7)];
}

const [name, module, ...options] = process.argv.slice(2);
const list = stored(Buffer.from(JSON.stringify({ packages: packages(name, options) })));
const content = Buffer.concat([Buffer.from(number(SECTION.length)), Buffer.from(SECTION), list]);
appendFileSync(module, Buffer.concat([Buffer.from([0, ...number(content.length)]), content]));
