// What the library takes from JavaScript: values, the clock and randomness.

const names = { bigint: 'a BigInt', function: 'a function', symbol: 'a symbol', undefined: 'undefined' };

// A value as JSON text. JSON.stringify leaves out what JSON does not have, and writes maps and sets as empty objects. A
// restriction without its members allows everything, so these are refused.
export function stringify(value) {
  const refuse = (name, what) => {
    throw new Error(`${name === '' ? 'the argument' : name}: expected JSON, not ${what}; leave it out, or write a plain value`);
  };
  return JSON.stringify(value, (name, item) => {
    if (names[typeof item]) refuse(name, names[typeof item]);
    if (typeof item === 'number' && !Number.isFinite(item)) refuse(name, String(item));
    if (typeof item === 'object' && item !== null && !Array.isArray(item)) {
      const kind = Object.prototype.toString.call(item);
      if (kind !== '[object Object]') refuse(name, kind.slice(8, -1));
    }
    return item;
  });
}

export function parse(text) {
  return JSON.parse(text);
}

// Unix milliseconds.
export function now() {
  return Date.now();
}

export function random(bytes) {
  return crypto.getRandomValues(new Uint8Array(bytes));
}
