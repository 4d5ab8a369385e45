#!/usr/bin/env node
// run.mjs MODULE NAMES...: how fast the module reads bodies, in MB/s, one line for each kind.

import { readFileSync } from "node:fs";

// How long each kind is read. The fastest reading counts, because what slows another down is the machine.
const DURATION_MS = 1000;

const [path, ...names] = process.argv.slice(2);
// It prints nothing and needs no clock: what it imports is never called.
const nothing = new Proxy({}, { get: () => () => 0 });
const imports = new Proxy({}, { get: () => nothing });
const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(path)), imports);

function megabytesPerSec(job) {
  const length = exports.prepare(job);
  const begun = performance.now();
  let fastest = Infinity;
  while (performance.now() - begun < DURATION_MS) {
    const started = performance.now();
    if (exports.run(job, 1) !== 1) throw new Error(`${names[job]} cannot be read`);
    fastest = Math.min(fastest, performance.now() - started);
  }
  return length / fastest / 1e3;
}

exports._initialize?.();
names.forEach((name, job) => console.log(`${name} ${megabytesPerSec(job).toFixed(0)}`));
