// node on_a_free_port.mjs FILE SERVER: runs a server over HTTP on a free port of this machine alone, and writes the
// port to FILE, with a line end.
import { writeFileSync } from "node:fs";
import { Server } from "node:net";
import { pathToFileURL } from "node:url";

const [file, server] = process.argv.splice(2, 2, "streamableHttp");
const { listen } = Server.prototype;
Server.prototype.listen = function (_port, listening) {
  this.once("listening", () => writeFileSync(file, `${this.address().port}\n`));
  return listen.call(this, 0, "127.0.0.1", listening);
};
await import(pathToFileURL(server));
