#!/usr/bin/env node
// run.mjs MODULE NAMES...: how fast the module reads bodies, in MB/s, one line for each kind.

import { readFileSync } from "node:fs";

const ROUND_MS = 100;
const ROUNDS = 7;

const [path, ...names] = process.argv.slice(2);
// It prints nothing and needs no clock: what it imports is never called.
const nothing = new Proxy({}, { get: () => () => 0 });
const imports = new Proxy({}, { get: () => nothing });
const module = new WebAssembly.Module(readFileSync(path));
const { exports } = new WebAssembly.Instance(module, imports);

function megabytesPerSec(job) {
  const length = exports.prepare(job);
  if (exports.run(job, 1) !== 1) throw new Error(`${names[job]} cannot be read`);
  let best = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const started = performance.now();
    let bytes = 0;
    while (performance.now() - started < ROUND_MS) bytes += length * exports.run(job, 1);
    best = Math.max(best, bytes / (performance.now() - started) / 1e3);
  }
  return best;
}

exports._initialize?.();
names.forEach((name, job) => console.log(`${name} ${megabytesPerSec(job).toFixed(0)}`));
