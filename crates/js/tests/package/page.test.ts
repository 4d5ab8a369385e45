// What the package does in a page: Chromium loads it from a server, and the page does all of it by itself.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo } from 'node:net';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { attenuate, mint } from 'vkey';

const root = process.env['VKEY_TEST_ROOT'] ?? '';
const chromium = process.env['VKEY_TEST_CHROMIUM'] ?? '';
const SECRET = 'q8#Zr!2vLw$9xTn@4bKdHm7%eYc3';
const now = 1_790_000_000;

const page = `<!doctype html><title>vkey</title><pre id="result">not run</pre><script type="module">
  const result = document.getElementById('result');
  try {
    const { attenuate, explain, inspect, mint } = await import('/vkey/index.js');
    const key = mint(${JSON.stringify(SECRET)}, { tenant: 'acme', lifetime: '1h', jti: 'k1' }, { ring: 'main', now: ${now} });
    const child = attenuate(key, [{ methods: ['GET'] }], { now: ${now} });
    const { reason } = explain(child, { method: 'POST', path: '/' }, { now: ${now} });
    result.textContent = [child, reason, inspect(child).ring, inspect(mint(${JSON.stringify(SECRET)}, { tenant: 'acme',
      lifetime: '1h' }, { ring: 'main' })).claims.jti.length].join(' ');
  } catch (error) {
    result.textContent = String(error);
  }
</script>`;

test('a page makes the key that Node makes, and asks its server for nothing but the package', async () => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? '/';
    asked.push(`${request.method} ${path}`);
    const type = path.endsWith('.js') ? 'text/javascript' : path.endsWith('.wasm') ? 'application/wasm' : 'text/html';
    response.setHeader('content-type', type);
    response.end(path.startsWith('/vkey/') ? readFileSync(`${root}/target/js/${path.slice(6)}`) : page);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const options = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--dump-dom',
    '--virtual-time-budget=10000', `--user-data-dir=${process.cwd()}/chromium`, `http://127.0.0.1:${port}/`];
  const browser = spawn(chromium, options, { stdio: ['ignore', 'pipe', 'ignore'] });
  let dom = '';
  browser.stdout.on('data', (piece: Buffer) => { dom += piece.toString(); });
  await once(browser, 'close');
  server.close();
  const child = attenuate(mint(SECRET, { tenant: 'acme', lifetime: '1h', jti: 'k1' }, { ring: 'main', now }),
    [{ methods: ['GET'] }], { now });
  assert.equal(/<pre id="result">(.*?)<\/pre>/.exec(dom)?.[1], `${child} method main 18`, dom);
  const others = asked.filter((line) => !/^GET \/(favicon\.ico|vkey\/[\w/.-]+)?$/.test(line));
  assert.deepEqual(others, []);
});
