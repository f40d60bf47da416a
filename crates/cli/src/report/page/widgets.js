// What sections are built of: controls, tables, signs, the theme, and redrawing at a new width.

let segments = 0;

/** Radio buttons in a row. @param {[string, string][]} options @param {(value: string) => void} on */
function seg(label, options, value, on) {
  const name = `seg${segments++}`;
  const one = ([v, text]) =>
    h('label', {}, h('input', { type: 'radio', name, value: v, checked: v === value, onchange: () => on(v) }), text);
  return h('fieldset', { class: 'seg' }, h('legend', { class: 'vh' }, label),
    h('span', { class: 'l', 'aria-hidden': 'true' }, label), h('span', { class: 'in' }, options.map(one)));
}

/** Numbers and text, what is missing last. */
function compareBy(key, dir) {
  return (a, b) => {
    const x = key(a), y = key(b);
    if (x == null || x !== x) return y == null || y !== y ? 0 : 1;
    if (y == null || y !== y) return -1;
    if (typeof x === 'string' && typeof y === 'string') return x.localeCompare(y, 'en', { numeric: true }) * dir;
    return (x > y ? 1 : x < y ? -1 : 0) * dir;
  };
}

/**
 * A table that sorts by its heads. A cell is text, a node, or {t: what is shown, v: sorted by, cls}.
 * @param {{t: any, num?: boolean, title?: string}[]} columns
 * @param {{c: any[], id?: string, cls?: string}[]} rows
 * @param {{sort?: number, dir?: number, focus?: string, cls?: string, onsort?: (key: number, dir: number) => void}} [options]
 */
function table(columns, rows, options = {}) {
  const body = h('tbody');
  let key = options.sort ?? null, dir = options.dir ?? -1;
  const cell = (row) => (c, i) =>
    h('td', { class: ((columns[i].num ? 'num ' : '') + (c?.cls || '')).trim() || null }, c?.t ?? (c?.v === undefined ? c : null) ?? '–');
  const draw = () => {
    const sorted = key == null ? rows : [...rows].sort(compareBy((row) => row.c[key]?.v ?? (typeof row.c[key] === 'string' ? row.c[key] : null), dir));
    body.replaceChildren(...sorted.map((row) => h('tr', { class: row.cls, id: row.id }, row.c.map(cell(row)))));
  };
  const mark = () =>
    heads.forEach((head, i) =>
      key === i ? head.setAttribute('aria-sort', dir > 0 ? 'ascending' : 'descending') : head.removeAttribute('aria-sort'));
  const sortBy = (i) => {
    dir = key === i ? -dir : columns[i].num ? -1 : 1;
    key = i;
    mark();
    draw();
    options.onsort?.(key, dir);
  };
  const heads = columns.map((column, i) =>
    h('th', { class: column.num ? 'num' : null, scope: 'col', title: column.title },
      h('button', { type: 'button', onclick: () => sortBy(i) }, column.t)));
  mark();
  draw();
  return h('div', { class: 'tw', tabindex: 0, role: 'region', 'aria-label': options.focus },
    h('table', { class: options.cls }, h('thead', {}, h('tr', {}, heads)), body));
}

/** Labels of the tables that are open: what is drawn again has them open again. */
const opened = new Set();

/** Data under a chart, built when it is opened. */
function alt(label, build) {
  const details = h('details', { class: 'alt', open: opened.has(label) }, h('summary', {}, label));
  details.addEventListener('toggle', () => {
    if (!details.isConnected) return;
    opened[details.open ? 'add' : 'delete'](label);
    if (details.open && details.children.length < 2) details.append(build());
  });
  return details;
}

/** Makes the buttons beside commands copy them. */
function copyButtons() {
  for (const box of $$('.cmd')) {
    const text = $('code', box).textContent;
    const done = (button) => {
      button.textContent = 'copied';
      setTimeout(() => (button.textContent = 'copy'), 1500);
    };
    $('button', box)?.remove();
    box.append(h('button', {
      type: 'button',
      'aria-label': `copy the command ${text}`,
      onclick: async (event) => {
        const button = event.currentTarget;
        try {
          await navigator.clipboard.writeText(text);
        } catch {
          const area = h('textarea', {}, text);
          document.body.append(area);
          area.select();
          document.execCommand('copy');
          area.remove();
        }
        done(button);
      },
    }, 'copy'));
  }
}

/** Downloads text as a file. */
function download(name, text) {
  const link = h('a', { href: URL.createObjectURL(new Blob([text], { type: 'text/csv' })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Redrawing: sections put their draw functions here.
/** @type {(() => void)[]} */
const onSize = [];
/** @type {(() => void)[]} */
const onTheme = [];

let lastWidth = 0, frame = 0;
// The width alone: a table that is opened makes the page taller, and must not be redrawn.
new ResizeObserver(() => {
  const width = document.documentElement.clientWidth;
  if (width === lastWidth) return;
  lastWidth = width;
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => onSize.forEach((draw) => draw()));
}).observe(document.documentElement);

const redraw = () => [...onTheme, ...onSize].forEach((draw) => draw());
addEventListener('beforeprint', () => {
  document.documentElement.classList.add('printing');
  redraw();
});
addEventListener('afterprint', () => {
  document.documentElement.classList.remove('printing');
  redraw();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => onTheme.forEach((draw) => draw()));

/** Auto, dark, light; remembered where the browser remembers. */
function themeButton() {
  const key = 'tensorkeep.theme', next = { auto: 'dark', dark: 'light', light: 'auto' };
  const button = h('button', { type: 'button', id: 'theme' });
  const set = (value) => {
    button.dataset.value = value;
    button.textContent = `Theme: ${value}`;
    if (value === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
    onTheme.forEach((draw) => draw());
  };
  let value = 'auto';
  try {
    value = localStorage.getItem(key) || 'auto';
  } catch {}
  set(value in next ? value : 'auto');
  button.addEventListener('click', () => {
    const value = next[button.dataset.value];
    set(value);
    try {
      localStorage.setItem(key, value);
    } catch {}
  });
  $('#theme')?.remove();
  $('.head').append(button);
}

/** Marks in the list of contents where one is. */
function spy() {
  const links = new Map($$('.toc a').map((a) => [a.hash.slice(1), a]));
  const sections = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  let current;
  const update = () => {
    let here = sections[0];
    for (const section of sections) if (section.getBoundingClientRect().top < innerHeight * 0.28) here = section;
    if (innerHeight + scrollY > document.documentElement.scrollHeight - 4) here = sections.at(-1);
    if (!here || here === current) return;
    current = here;
    links.forEach((a, id) => (id === here.id ? a.setAttribute('aria-current', 'true') : a.removeAttribute('aria-current')));
    const link = links.get(here.id), list = link.closest('ol');
    if (list.scrollWidth > list.clientWidth) list.scrollLeft = link.offsetLeft - list.clientWidth / 2 + link.offsetWidth / 2;
  };
  addEventListener('scroll', update, { passive: true });
  update();
}

/** Counts ages from dates, once a second; dates are shown by the reader's clock. */
function ages() {
  for (const time of $$('time[data-t]')) {
    const t = +time.dataset.t;
    time.title = stamp(t);
    const text = time.dataset.show === 'date' ? stamp(t) : ago(now() - t);
    if (time.textContent !== text) time.textContent = text;
  }
}

// Signs.
const cross = (x, y, r = 4, colour = 'var(--bad)') =>
  s('path', { d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x + r} ${y - r}L${x - r} ${y + r}`, stroke: colour, 'stroke-width': 2, fill: 'none' });
const square = (x, y, r = 4) => s('rect', { x: x - r, y: y - r, width: 2 * r, height: 2 * r, fill: 'var(--muted)' });
const ring = (x, y, r = 4.5) => s('circle', { cx: x, cy: y, r, fill: 'var(--bg)', stroke: 'var(--good)', 'stroke-width': 2 });
const arrow = (x, y) => s('path', { d: `M${x} ${y - 5}l8 5l-8 5z`, fill: 'var(--good)' });
const query = (x, y) => s('text', { x: x - 3, y: y + 4 }, '?');
/** How an attempt ended, as a sign. */
const endSign = (end, x, y, r = 4) =>
  ({ killed: () => cross(x, y, r), running: () => arrow(x, y), unknown: () => query(x, y) })[end]?.() ?? square(x, y, r);
const sign = (shapes, width = 16) => s('svg', { width, height: 14, 'aria-hidden': 'true' }, shapes);
const entry = (shapes, words) => h('span', {}, sign(shapes), words);
const line = (x1, y1, x2, y2, stroke, more = {}) => s('line', { x1, y1, x2, y2, stroke, ...more });
const text = (x, y, words, more = {}) => s('text', { x, y, ...more }, words);
