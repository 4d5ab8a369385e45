// What the page says about a key, in Node.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { facts, restriction, sentences, span, state, validity, visible } from '../../src/web/page/sentences.js';

const NOW = 1_790_000_000;
const inspection = (claims, caveats = []) => ({ claims, caveats, understood: true, notes: [], ring: 'main', epoch: 7, kid: 'main-7', text: '' });

test('every member of a restriction is a sentence', () => {
  assert.deepEqual(restriction({
    nbf: NOW, exp: NOW + 60, methods: ['GET'], hosts: ['*.example.com'], paths: ['/v1/**', '/v2'], models: [], sources: ['10.0.0.0/8'],
    client_cert: ['00'],
    mcp: { servers: ['main'], tools: ['a*', { name: 'sql', args: [{ at: '/limit', max: 5 }], only_args: ['limit'] }] },
    any_of: [{ models: ['gpt-4o'] }, { mcp: {} }], rate: { requests: 5, per: '1m', burst: 2 },
    quotas: [{ per: 'day', requests: 1 }, { per: 'month', cost_usd: '1.50' }, { per: 'total', tokens: 9 }],
  }), [
    'not before 2026-09-21 14:13:20 UTC', 'until 2026-09-21 14:14:20 UTC', 'only the methods GET', 'only the hosts *.example.com',
    'only the paths /v1/**, /v2', 'no models at all', 'only the client addresses 10.0.0.0/8', 'only the client certificates 00',
    'MCP calls: only the MCP servers main; only the MCP tools a*, sql (if /limit {"max":5} and no arguments but ["limit"])',
    'one of these: (only the models gpt-4o) or (only MCP calls)', 'at most 5 requests in 1m, 2 of them at once',
    'at most 1 request a day', 'at most $1.50 a month', 'at most 9 tokens in total',
  ]);
});

test('what gates do not understand is never silent', () => {
  assert.deepEqual(restriction({ pathz: ['/'] }), ['an unknown restriction pathz: gates refuse the key']);
  assert.deepEqual(restriction({ constructor: 1, toString: 2 }).length, 2);
  for (const json of [null, 7, 'x', []]) assert.match(restriction(json)[0], /do not understand/);
  for (const json of [{ exp: 'soon' }, { methods: 7 }, { mcp: null }, { any_of: null }, { rate: null }, { quotas: [null] }]) {
    assert.ok(restriction(json)[0].length > 0);
  }
});

test('the shortest of all times counts', () => {
  const key = inspection({ iat: NOW, exp: NOW + 900, only: { exp: NOW + 800 } }, [{ exp: NOW + 600, nbf: NOW + 10 }, null]);
  assert.deepEqual(validity(key), { from: NOW + 10, to: NOW + 600 });
  assert.equal(state(key, NOW)[0], 'warn');
  assert.deepEqual(state(key, NOW + 10), ['good', 'It expires in 9 minutes 50 seconds, 2026-09-21 14:23:20 UTC.']);
  assert.match(state(key, NOW + 600)[1], /^It expired less than a second ago/);
  assert.match(state(inspection({ exp: 5 }, [{ nbf: 9 }]), 0)[1], /never valid/);
  assert.equal(state({ ...key, understood: false }, NOW + 20)[0], 'bad');
});

test('texts hide nothing, and long ones are cut', () => {
  assert.equal(visible('a\u202eb\u0000\u200b'), 'a\\u{202e}b\\u{0}\\u{200b}');
  assert.equal(visible('x'.repeat(1000)).length, 301);
  assert.deepEqual(facts(inspection({ tenant: '\u202e', sub: 'ci' }))[0], ['Tenant', '\\u{202e}']);
  assert.ok(restriction({ paths: Array(5000).fill('/a') })[0].endsWith('and 4980 more'));
});

test('restrictions are said apart: of the minter, and of who narrowed', () => {
  const key = inspection({ only: { methods: ['GET'] }, rate: { requests: 1, per: '1s' } }, [{ paths: ['/'] }]);
  assert.deepEqual(sentences(key).map(([title, items]) => [title, items.length]), [['As it was minted', 2], ['Restriction 1, added later', 1]]);
  assert.deepEqual(sentences(inspection({ tenant: 'acme' })), []);
  assert.equal(span(90_061), '1 day 1 hour');
});
