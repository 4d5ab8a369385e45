// What a key says, in sentences.

// The most entries of a list that are spelled out.
const MOST = 20;
const LONGEST = 300;

// A text of which no character is invisible or changes how its neighbours are shown.
export function visible(text) {
  const characters = [...String(text)];
  const cut = characters.slice(0, LONGEST).join('') + (characters.length > LONGEST ? '…' : '');
  return cut.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

// A time in Unix seconds, in UTC.
export function time(secs) {
  const date = new Date(secs * 1000);
  if (typeof secs !== 'number' || Number.isNaN(date.getTime())) return `the time ${visible(secs)}`;
  return `${date.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

// How long it is from one time to a later one: the two largest units.
export function span(secs) {
  const units = [['day', 86_400], ['hour', 3600], ['minute', 60], ['second', 1]];
  const parts = [];
  let left = Math.max(0, Math.floor(secs));
  for (const [name, size] of units) {
    const count = Math.floor(left / size);
    if (count > 0 && parts.length < 2) parts.push(`${count} ${name}${count === 1 ? '' : 's'}`);
    left %= size;
  }
  return parts.length > 0 ? parts.join(' ') : 'less than a second';
}

function list(items, what) {
  if (!Array.isArray(items)) return `${what} ${visible(JSON.stringify(items))}`;
  if (items.length === 0) return `no ${what} at all`;
  const shown = items.slice(0, MOST).map(entry);
  const more = items.length > MOST ? ` and ${items.length - MOST} more` : '';
  return `only the ${what} ${shown.join(', ')}${more}`;
}

// An entry of a list: a text, or a tool with conditions.
function entry(item) {
  if (typeof item === 'string') return visible(item);
  if (typeof item?.name !== 'string') return visible(JSON.stringify(item));
  const conditions = [];
  for (const condition of Array.isArray(item.args) ? item.args : []) {
    const { at, ...rest } = condition ?? {};
    conditions.push(`${visible(at)} ${visible(JSON.stringify(rest))}`);
  }
  if (item.only_args !== undefined) conditions.push(`no arguments but ${visible(JSON.stringify(item.only_args))}`);
  return `${visible(item.name)}${conditions.length > 0 ? ` (if ${conditions.join(' and ')})` : ''}`;
}

function calls(mcp) {
  const parts = [];
  for (const [member, what] of [['servers', 'MCP servers'], ['methods', 'MCP methods'], ['tools', 'MCP tools'],
    ['resources', 'MCP resources'], ['prompts', 'MCP prompts']]) {
    if (mcp?.[member] !== undefined) parts.push(list(mcp[member], what));
  }
  return parts.length > 0 ? [`MCP calls: ${parts.join('; ')}`] : ['only MCP calls'];
}

function counted(number, what) {
  return `${visible(number)} ${what}${number === 1 ? '' : 's'}`;
}

function quota(item) {
  const periods = { minute: 'a minute', hour: 'an hour', day: 'a day', week: 'a week', month: 'a month', total: 'in total' };
  const period = periods[item?.per] ?? `per ${visible(item?.per)}`;
  if (item?.requests !== undefined) return `at most ${counted(item.requests, 'request')} ${period}`;
  if (item?.tokens !== undefined) return `at most ${counted(item.tokens, 'token')} ${period}`;
  if (item?.cost_usd !== undefined) return `at most $${visible(item.cost_usd)} ${period}`;
  return `the quota ${visible(JSON.stringify(item))}`;
}

const MEMBERS = {
  nbf: (secs) => [`not before ${time(secs)}`],
  exp: (secs) => [`until ${time(secs)}`],
  methods: (items) => [list(items, 'methods')],
  hosts: (items) => [list(items, 'hosts')],
  paths: (items) => [list(items, 'paths')],
  models: (items) => [list(items, 'models')],
  mcp: calls,
  sources: (items) => [list(items, 'client addresses')],
  client_cert: (items) => [list(items, 'client certificates')],
  any_of: (items) => {
    const alternatives = (Array.isArray(items) ? items : []).map((item) => restriction(item).join('; '));
    return [`one of these: ${alternatives.map((alternative) => `(${alternative})`).join(' or ')}`];
  },
  rate: ({ requests, per, burst } = {}) => {
    const at = burst === undefined ? '' : `, ${visible(burst)} of them at once`;
    return [`at most ${counted(requests, 'request')} in ${visible(per)}${at}`];
  },
  quotas: (items) => (Array.isArray(items) ? items : [items]).map(quota),
};

// What a restriction allows: one sentence for each of its members.
export function restriction(json) {
  if (json === null || typeof json !== 'object' || Array.isArray(json)) return ['something that gates do not understand: they refuse the key'];
  return Object.entries(json).flatMap(([name, value]) => {
    if (!Object.hasOwn(MEMBERS, name)) return [`an unknown restriction ${visible(name)}: gates refuse the key`];
    return MEMBERS[name](value ?? undefined);
  });
}

// The span in which a key is valid, as far as it says: Unix seconds.
export function validity({ claims, caveats }) {
  const parts = [claims, claims?.only, ...caveats].filter((part) => part !== null && typeof part === 'object');
  const numbers = (name) => parts.map((part) => part[name]).filter((value) => typeof value === 'number');
  return { from: Math.max(claims?.iat ?? 0, ...numbers('nbf')), to: Math.min(Infinity, ...numbers('exp')) };
}

// Whether a key is valid at a time, as far as it says.
export function state(inspection, now) {
  const { from, to } = validity(inspection);
  if (!inspection.understood) return ['bad', 'Gates do not understand all of it, and refuse it.'];
  if (to <= from) return ['bad', 'It is never valid: it ends before it begins.'];
  if (now >= to) return ['bad', `It expired ${span(now - to)} ago, ${time(to)}.`];
  if (now < from) return ['warn', `It becomes valid in ${span(from - now)}, ${time(from)}.`];
  return ['good', `It expires in ${span(to - now)}, ${time(to)}.`];
}

// Whose key it is: names and values.
export function facts({ claims, ring, epoch, kid }) {
  const texts = [
    ['Tenant', claims?.tenant], ['Subject', claims?.sub], ['Key id', claims?.jti], ['Tier', claims?.tier ?? 'default'],
    ['Audience', Array.isArray(claims?.aud) ? claims.aud.join(', ') : claims?.aud],
    ['Signed by', `ring ${ring}, epoch ${epoch} (${kid})`],
    ['Minted', claims?.iat === undefined ? undefined : time(claims.iat)],
    ['Notes', claims?.meta === undefined ? undefined : JSON.stringify(claims.meta)],
  ];
  return texts.filter(([, text]) => text !== undefined && text !== null).map(([name, text]) => [name, visible(text)]);
}

// What a key allows: headings, each with its sentences.
export function sentences({ claims, caveats }) {
  const { rate, quotas } = claims ?? {};
  const minted = { ...(claims?.only ?? {}), ...(rate === undefined ? {} : { rate }), ...(quotas === undefined ? {} : { quotas }) };
  const groups = [];
  if (Object.keys(minted).length > 0) groups.push(['As it was minted', restriction(minted)]);
  caveats.forEach((caveat, index) => groups.push([`Restriction ${index + 1}, added later`, restriction(caveat)]));
  return groups;
}
