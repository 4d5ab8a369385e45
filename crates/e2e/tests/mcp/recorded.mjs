// node recorded.mjs FILE SERVER: runs a server of the stdio transport, and writes to FILE all that it reads.
import { appendFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [file, server] = process.argv.splice(2);
writeFileSync(file, "");
const { emit } = process.stdin;
process.stdin.emit = function (event, ...values) {
  if (event === "data") appendFileSync(file, values[0]);
  return emit.call(this, event, ...values);
};
await import(pathToFileURL(server));
