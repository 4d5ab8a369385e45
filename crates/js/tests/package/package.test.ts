// What the package does in Node: types, agreement with the command, and keys that the gate judges.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';

import { type Claims, type Report, type Request, type Restriction, attenuate, explain, inspect, mint } from 'vkey';
import * as read from 'vkey/read';
import * as write from 'vkey/write';

const command = process.env['VKEY_TEST_COMMAND'] ?? '';
const root = process.env['VKEY_TEST_ROOT'] ?? '';
const MAX_BYTES = 200_000;
const SECRET = 'q8#Zr!2vLw$9xTn@4bKdHm7%eYc3';
const NOW = 1_790_000_000;
const now = NOW;
const signing = { ring: 'main', now };
const claims = { tenant: 'acme', lifetime: '1h', jti: 'k1' } satisfies Claims;

// The command. Its standard output without the line end, and its standard error.
function vkey(input: string, ...options: string[]): { out: string; notes: string; code: number | null } {
  const { stdout, stderr, status } = spawnSync(command, options, {
    input,
    encoding: 'utf8',
    env: { VKEY_MAIN_SECRET: SECRET },
  });
  return { out: stdout.trimEnd(), notes: stderr.trimEnd(), code: status };
}

function message(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof Error);
    return error.message;
  }
  throw new Error('nothing was thrown');
}

// The sentence of the command, in which options are written as the members of arguments.
function sentence(notes: string): string {
  const members = notes.replace(/^vkey: (error: )?/, '').replace('--not-before', 'nbf').replaceAll('--', '');
  return members.replace('is not printed', 'is not made').replace('; force prints it all the same', '');
}

interface Vectors {
  cases: { name: string; token: string }[];
}

const vectors = (): string[] => {
  const text = readFileSync(`${root}/testdata/vectors/keys.json`, 'utf8');
  return (JSON.parse(text) as Vectors).cases.map(({ token }) => token);
};

test('each module is small', () => {
  for (const part of ['read', 'write']) {
    const { size } = statSync(`${root}/target/js/wasm/${part}_bg.wasm`);
    assert.ok(size < MAX_BYTES, `${part}: ${size} bytes`);
  }
});

test('the parts are the whole', () => {
  assert.deepEqual({ ...read, ...write }, { attenuate, explain, inspect, mint });
});

test('inspect shows what the command shows', () => {
  let shown = 0;
  for (const token of vectors().filter((token) => token !== '' && !token.includes('\n'))) {
    const { out, notes, code } = vkey(token, 'inspect');
    if (out === '') {
      assert.equal(message(() => inspect(token)), sentence(notes));
      continue;
    }
    const { text, notes: flaws, understood } = inspect(token);
    assert.equal(out.slice(out.indexOf('\n') + 1), text);
    assert.equal(notes, flaws.map((flaw) => `vkey: ${flaw}`).join('\n'));
    assert.equal(understood, code === 0);
    shown += 1;
  }
  assert.ok(shown > 20, `${shown}`);
});

test('attenuate makes the key that the command makes', () => {
  const key = mint(SECRET, claims, signing);
  const caveats: Restriction[][] = [
    [{ methods: ['GET'] }],
    [{ models: ['gpt-4o*'] }, { paths: ['/v1/**'], exp: NOW + 60 }],
    [{ any_of: [{ models: ['a'] }, { mcp: { tools: ['search_*', { name: 'q', args: [{ at: '/limit', max: 10 }] }] } }] }],
    [{ rate: { requests: 5, per: '1m' }, quotas: [{ tokens: 100, per: 'day' }] }],
    [{ paths: ['v1'] }],
    [{ methods: ['get'] }],
    [{ exp: NOW - 1 }],
    [{ exp: NOW + 5 }, { nbf: NOW + 10 }],
    [{ paths: ['/' + 'a'.repeat(4000)] }],
    Array.from({ length: 17 }, () => ({ methods: ['GET'] })),
    [1 as unknown as Restriction],
    [{ method: ['GET'] } as unknown as Restriction],
  ];
  let made = 0;
  for (const list of caveats) {
    const options = list.flatMap((caveat) => ['--caveat', JSON.stringify(caveat)]);
    const { out, notes } = vkey(key, 'attenuate', '--now', String(NOW), ...options);
    if (out === '') {
      assert.equal(message(() => attenuate(key, list, { now })), sentence(notes));
      continue;
    }
    assert.equal(attenuate(key, list, { now }), out);
    made += 1;
  }
  assert.equal(made, 4);
  const expired = vkey(key, 'attenuate', '--now', String(NOW + 3600), '--caveat', '{"methods":["GET"]}').notes;
  assert.equal(message(() => attenuate(key, [{ methods: ['GET'] }], { now: NOW + 3600 })), sentence(expired));
});

test('mint makes the key that the command makes', () => {
  const all: Claims = {
    ...claims, tier: 'pro', sub: 'ci', aud: ['a', 'b'], nbf: NOW + 5,
    only: { hosts: ['api.openai.com'] }, meta: { note: 'é' },
  };
  const cases: [Claims, string | undefined, string[]][] = [
    [claims, undefined, []],
    [claims, '168h', []],
    [all, undefined, ['--tier', 'pro', '--sub', 'ci', '--aud', 'a', '--aud', 'b', '--not-before', `${NOW + 5}`,
      '--only', JSON.stringify(all.only), '--meta', JSON.stringify(all.meta)]],
    [{ ...claims, nbf: NOW + 3600 }, undefined, ['--not-before', `${NOW + 3600}`]],
    [{ ...claims, tenant: 'a b' }, undefined, ['--tenant', 'a b']],
    [{ ...claims, only: { methods: ['get'] } }, undefined, ['--only', '{"methods":["get"]}']],
    [{ ...claims, only: { exp: 5 } }, undefined, ['--only', '{"exp":5}']],
    [{ ...claims, only: { paths: ['/' + 'a'.repeat(4000)] } }, undefined, ['--only', `{"paths":["/${'a'.repeat(4000)}"]}`]],
  ];
  let agreed = 0;
  for (const [claims, interval, options] of cases) {
    const tenant = options.includes('--tenant') ? [] : ['--tenant', 'acme'];
    const rotation = interval === undefined ? [] : ['--interval', interval];
    const { out, notes } = vkey('', 'mint', '--ring', 'main', '--secret-env', 'VKEY_MAIN_SECRET', '--lifetime', '1h',
      '--jti', 'k1', '--now', String(NOW), ...tenant, ...rotation, ...options);
    const made = () => mint(SECRET, claims, interval === undefined ? signing : { ...signing, interval });
    const option = (text: string) => sentence(text).replace('change the option', 'change the member');
    if (out === '') {
      assert.equal(message(made), option(notes));
      continue;
    }
    assert.equal(made(), out);
    agreed += 1;
  }
  assert.equal(agreed, 3);
  const ids = new Set(Array.from({ length: 9 }, () => mint(SECRET, { tenant: 'acme', lifetime: '1h' }, { ring: 'main' })));
  assert.equal(ids.size, 9);
});

const config = {
  keyring: [{ name: 'main', secret: '${VKEY_MAIN_SECRET}' }],
  mcp: { routes: [{ path: '/mcp' }] },
};

test('the gate takes a child, refuses what its caveats forbid, and explain says so', () => {
  writeFileSync('config.json', JSON.stringify(config));
  const parent = mint(SECRET, claims, signing);
  const child = attenuate(parent, [{ any_of: [{ models: ['gpt-4o*'] }, { mcp: { tools: ['search_*'] } }] }], { now });
  const reader = attenuate(child, [{ methods: ['GET'] }], { now });
  const chat = { method: 'POST', path: '/v1/chat/completions' };
  const call = { method: 'POST', path: '/mcp' };
  const rows: [string, Request, string[], Report['decision']][] = [
    [parent, { ...chat, model: 'o1' }, ['--model', 'o1'], 'allow'],
    [child, { ...chat, model: 'gpt-4o-mini' }, ['--model', 'gpt-4o-mini'], 'allow'],
    [child, { ...chat, model: 'o1' }, ['--model', 'o1'], 'deny'],
    [child, chat, [], 'undecided'],
    [child, { ...call, mcp: { tool: 'search_web' } }, ['--mcp-method', 'tools/call', '--mcp-name', 'search_web'], 'allow'],
    [child, { ...call, mcp: { tool: 'delete' } }, ['--mcp-method', 'tools/call', '--mcp-name', 'delete'], 'deny'],
    [reader, { ...chat, model: 'gpt-4o' }, ['--model', 'gpt-4o'], 'deny'],
    [reader, { ...chat, path: '/v1/../a', model: 'gpt-4o' }, ['--model', 'gpt-4o'], 'deny'],
  ];
  for (const [key, request, options, decision] of rows) {
    const { out, notes } = vkey(key, 'explain', '--config', 'config.json', '--json', '--now', String(NOW),
      '--method', request.method, '--path', request.path, ...options);
    assert.notEqual(out, '', notes);
    const gate = JSON.parse(out) as Report;
    const report = explain(key, request, { now, secret: SECRET });
    assert.deepEqual([report.decision, report.reason, report.key], [gate.decision, gate.reason, gate.key], out);
    assert.equal(report.decision, decision);
    if (decision === 'undecided') continue;
    const verdicts = (stages: Report['stages']) => stages.map(({ stage, verdict }) => `${stage} ${verdict}`);
    const own = gate.stages.filter(({ stage }) => !['membership', 'address', 'body'].includes(stage));
    assert.deepEqual(verdicts(report.stages), verdicts(own));
    const unverified = explain(key, request, { now });
    assert.deepEqual([unverified.verified, unverified.decision], [false, decision]);
  }
  const other = explain(child, chat, { now, secret: 'Kd4@nTx9$wLv2!rZ#8qmYc7%eHb' });
  assert.deepEqual([other.decision, other.reason, other.key], ['deny', 'key_signature', null]);
  assert.equal(explain('vk1', chat, { now }).reason, 'key_malformed');
  assert.equal(explain(parent, chat, { now: NOW + 3600 }).reason, 'key_expired');
});

test('what JSON leaves out is refused, so that no restriction gets lost', () => {
  const key = mint(SECRET, claims, signing);
  const wrong: unknown[] = [
    [{ models: undefined }], [new Map([['models', ['a']]])], [{ models: new Set(['a']) }], [{}], [], undefined, 'x',
    [{ exp: Number.NaN }], [{ exp: 5n }], [{ models: [undefined] }], [() => 1], [null],
  ];
  for (const caveats of wrong) message(() => attenuate(key, caveats as Restriction[], { now }));
  message(() => mint(SECRET, { ...claims, only: undefined } as unknown as Claims, signing));
  message(() => attenuate(key, [{ methods: ['GET'] }], { now: Date.now() }));
  message(() => inspect(undefined as unknown as string));
});

test('no error holds a key, a tag or a secret', () => {
  const key = mint(SECRET, claims, signing);
  const tag = key.slice(key.lastIndexOf('.') + 1);
  const weak = 'hunter2hunter2A';
  const calls = [
    () => inspect(`${key}!`), () => attenuate(`${key}!`, [{ methods: ['GET'] }]), () => attenuate(key, [{ methods: ['get'] }]),
    () => mint(weak, claims, signing), () => mint(`${SECRET}\n`, claims, signing), () => mint(SECRET, claims, { ring: SECRET }),
    () => explain(key, { method: 'GET', path: '/', source: SECRET }), () => explain(key, { method: 'GET', path: '/' }, { secret: weak }),
  ];
  for (const text of calls.map(message)) {
    for (const hidden of [key, tag, SECRET, weak]) assert.ok(!text.includes(hidden), text);
  }
});
