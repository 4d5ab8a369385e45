// Inspect and narrow a key. The library runs in this page, and the key is sent to nobody.

import { facts, sentences, state, visible } from './sentences.js';

const part = (id) => document.getElementById(id);
const now = () => Math.floor(Date.now() / 1000);

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function fail(id, message) {
  part(id).hidden = message === '';
  part(id).textContent = message === '' ? '' : `Error: ${visible(message)}`;
}

// What a key says and allows, as elements.
function description(inspection) {
  const [kind, text] = state(inspection, now());
  const verdict = element('p', text);
  verdict.className = `verdict ${kind}`;
  const list = element('dl');
  list.className = 'facts';
  for (const [name, value] of facts(inspection)) list.append(element('div', undefined, element('dt', name), element('dd', value)));
  const groups = sentences(inspection);
  const allowed = groups.length === 0
    ? [element('p', 'It has no restrictions of its own: it allows whatever its tier and its tenant allow.')]
    : [element('p', 'It allows what its tier and its tenant allow, as far as all of this holds:'),
      ...groups.flatMap(([title, items]) => [element('h4', title), element('ul', undefined, ...items.map((item) => element('li', item)))])];
  const notes = inspection.notes.map((note) => element('li', visible(note)));
  const raw = element('details', undefined, element('summary', 'Show all of it'), element('pre', inspection.text));
  return [verdict, list, element('h3', 'What it allows'), ...allowed,
    ...(notes.length > 0 ? [element('h3', 'What is wrong with it'), element('ul', undefined, ...notes)] : []), raw];
}

const texts = (id) => part(id).value.split(',').map((text) => text.trim()).filter((text) => text !== '');

// The restriction that the form describes.
function restriction() {
  const caveat = {};
  const secs = Number(part('expires').value);
  if (secs > 0) caveat.exp = now() + secs;
  for (const name of ['methods', 'paths', 'hosts', 'sources']) if (texts(name).length > 0) caveat[name] = texts(name);
  const [models, tools] = [texts('models'), texts('tools')];
  // A request is for a model or for a tool, never for both.
  if (models.length > 0 && tools.length > 0) caveat.any_of = [{ models }, { mcp: { tools } }];
  else if (models.length > 0) caveat.models = models;
  else if (tools.length > 0) caveat.mcp = { tools };
  const amount = part('quota').value.trim();
  if (amount !== '') {
    const unit = part('quota-unit').value;
    caveat.quotas = [{ per: part('quota-per').value, [unit]: unit === 'cost_usd' ? amount : Number(amount) }];
  }
  return caveat;
}

async function start() {
  part('loading').hidden = false;
  const { inspect } = await import('./js/read.js');
  const { attenuate } = await import('./js/write.js');
  let key = '';

  const show = () => {
    key = part('virtual-key').value.trim();
    part('child').hidden = true;
    fail('narrow-problem', '');
    try {
      const inspection = key === '' ? null : inspect(key);
      part('description').replaceChildren(...(inspection === null ? [] : description(inspection)));
      part('said').hidden = inspection === null;
      part('narrow').hidden = inspection === null;
      fail('key-problem', '');
    } catch (error) {
      part('said').hidden = true;
      part('narrow').hidden = true;
      fail('key-problem', error.message);
    }
  };

  const narrow = () => {
    try {
      const child = attenuate(key, [restriction()]);
      part('child-key').value = child;
      part('child-description').replaceChildren(...description(inspect(child)));
      part('child').hidden = false;
      fail('narrow-problem', '');
      part('child-title').focus();
    } catch (error) {
      part('child').hidden = true;
      fail('narrow-problem', error.message);
    }
  };

  part('virtual-key').addEventListener('input', show);
  part('narrow-form').addEventListener('submit', (event) => {
    event.preventDefault();
    narrow();
  });
  part('copy').addEventListener('click', async () => {
    part('child-key').select();
    await navigator.clipboard?.writeText(part('child-key').value).catch(() => undefined);
    part('copied').textContent = 'The key is copied, or selected to be copied.';
  });
  part('tool').hidden = false;
  part('loading').hidden = true;
  show();
}

start().catch((error) => {
  part('loading').hidden = true;
  fail('tool-problem', `the library does not run in this browser: ${error.message}`);
});
