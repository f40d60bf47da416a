// One file, ours or of another format: its modules in order, and one tensor at a time.

const file = { chosen: -1, layer: /** @type {Map<string, number>} */ (new Map()), query: '' };
/** Modules that are drawn before "show all". */
const MODULES = 200;

/** The parts of a name before and behind its first number: `layers.`, 4, `.mlp.weight`. */
function numbered(name) {
  const found = /^(.*?[./]|)(\d+)([./].*)$/.exec(name);
  return found ? { before: found[1], number: +found[2], behind: found[3] } : null;
}

/**
 * Modules in the order of the file; those that repeat with the same names, dtypes and shapes are
 * one, of several layers.
 * @returns {{name: string, layers: {number: number, tensors: any[]}[]}[]}
 */
function modulesOf(tensors) {
  const stacks = new Map(), out = [];
  for (const t of tensors) {
    const n = numbered(t.name), key = n ? n.before : null;
    if (key != null) {
      if (!stacks.has(key)) stacks.set(key, new Map());
      const layers = stacks.get(key);
      if (!layers.has(n.number)) layers.set(n.number, []);
      layers.get(n.number).push(t);
    }
  }
  // Layers of one stack that have the same insides.
  const placed = new Map();
  for (const [key, layers] of stacks) {
    const alike = new Map();
    for (const [number, list] of layers) {
      const shape = list.map((t) => numbered(t.name).behind + t.dtype + t.shape).sort().join('|');
      if (!alike.has(shape)) alike.set(shape, []);
      alike.get(shape).push({ number, tensors: list });
    }
    placed.set(key, [...alike.values()]);
  }
  const seen = new Set();
  for (const t of tensors) {
    const n = numbered(t.name);
    if (n) {
      if (seen.has(n.before)) continue;
      seen.add(n.before);
      for (const group of placed.get(n.before)) {
        group.sort((a, b) => a.number - b.number);
        const numbers = group.map((g) => g.number), run = numbers.every((v, i) => !i || v === numbers[i - 1] + 1);
        const which = numbers.length === 1 ? numbers[0] : run ? `{${numbers[0]}…${numbers.at(-1)}}` : `{${numbers.slice(0, 6).join(',')}${numbers.length > 6 ? ',…' : ''}}`;
        out.push({ name: n.before + which, layers: group });
      }
    } else {
      const module = moduleOf(t.name), name = module === t.name ? '' : module;
      const last = out.find((m) => m.name === name && m.layers.length === 1 && m.layers[0].number === -1);
      if (last) last.layers[0].tensors.push(t);
      else out.push({ name, layers: [{ number: -1, tensors: [t] }] });
    }
  }
  return out;
}

function drawFile(/** @type {FilePage} */ data) {
  R = { data, T: tensorsOf(data.tensors), C: [], M: [], A: [], segs: [], run: { path: data.name } };
  if (!R.T.length) return;
  if (file.chosen < 0 || file.chosen >= R.T.length) {
    const bad = R.T.findIndex((t) => t.nan > 0), largest = R.T.reduce((best, t) => (t.bytes > R.T[best].bytes ? t.i : best), 0);
    file.chosen = bad >= 0 ? bad : largest;
  }
  const left = $('#net .left'), detail = $('#net .det'), all = modulesOf(R.T);
  let limit = MODULES;
  const filter = h('input', { type: 'search', id: 'ffilter', placeholder: 'filter: layers.4 *gate*', 'aria-label': 'filter tensors by name', oninput: () => {
    file.query = filter.value;
    draw();
  } });
  const count = h('span', { class: 'muted', 'aria-live': 'polite' });

  function leaf(t, words) {
    return h('button', { type: 'button', class: 'leaf', 'aria-pressed': String(t.i === file.chosen), onclick: () => {
      file.chosen = t.i;
      draw();
    } }, h('span', {}, words, t.nan ? h('span', { class: 'bad' }, ' NaN') : ''), h('span', { class: 'muted nowrap' }, t.tied != null ? 'tied' : t.shape), h('span', { class: 'muted' }, t.dtype));
  }

  function block(module, test) {
    const layers = module.layers, chosen = file.layer.get(module.name) ?? Math.max(0, layers.findIndex((l) => l.tensors.some((t) => t.i === file.chosen)));
    const layer = layers[Math.min(chosen, layers.length - 1)], tensors = layer.tensors.filter((t) => !test || test(t));
    const sum = layers.reduce((n, l) => n + l.tensors.reduce((m, t) => m + (t.tied != null ? 0 : t.n), 0), 0);
    const cut = (t) => {
      const n = layer.number >= 0 ? numbered(t.name) : null, rest = n ? n.behind.slice(1) : module.name ? t.name.slice(module.name.length + 1) : t.name;
      return rest || t.name;
    };
    const body = h('div', { class: 'blk' },
      h('h3', {}, module.name || 'top level', layers.length > 1 ? h('span', {}, `× ${layers.length}`) : '', h('span', { class: 'muted' }, sum ? `${short(sum)} parameters` : 'tied, none of its own')),
      layers.length > 1 ? h('div', { class: 'pick', role: 'group', 'aria-label': `which of ${module.name}` }, layers.slice(0, 128).map((l, i) => h('button', { type: 'button', 'aria-pressed': String(l === layer), onclick: () => {
        const own = numbered(R.T[file.chosen].name), same = own && l.tensors.find((t) => numbered(t.name).behind === own.behind);
        file.layer.set(module.name, i);
        if (same && layers.some((other) => other.tensors.some((t) => t.i === file.chosen))) file.chosen = same.i;
        draw();
      } }, String(l.number)))) : '',
      tensors.slice(0, 60).map((t) => leaf(t, cut(t))), tensors.length > 60 ? h('p', { class: 'muted tiny' }, `and ${tensors.length - 60} more; filter to see them`) : '');
    return layers.length > 1 ? h('div', { class: 'stack' }, body) : body;
  }

  function draw() {
    const test = matcher(file.query), hits = test ? R.T.filter(test) : R.T;
    const shown = all.filter((m) => !test || m.layers.some((l) => l.tensors.some(test)));
    count.textContent = test ? `${int(hits.length)} of ${plural(R.T.length, 'tensor')} match` : plural(R.T.length, 'tensor');
    left.replaceChildren(h('div', { class: 'bar' }, filter, count), ...shown.slice(0, limit).map((m) => block(m, test)),
      shown.length > limit ? h('p', { class: 'more' }, h('button', { type: 'button', onclick: () => { limit *= 5; draw(); } }, `Show more of ${int(shown.length)} modules`)) : '',
      shown.length ? '' : h('p', { class: 'muted' }, `No tensor matches “${file.query}”. `, h('button', { type: 'button', class: 'link', onclick: () => { filter.value = file.query = ''; draw(); } }, 'Clear the filter')));
    if (document.activeElement === document.body && file.query) filter.focus();
    drawDetail(detail, R.T[file.chosen], data);
  }
  draw();
  onSize.push(() => drawDetail(detail, R.T[file.chosen], data));
  const columns = [{ t: 'name' }, { t: 'dtype' }, { t: 'shape' }, { t: 'values', num: true }, { t: 'bytes', num: true }, { t: 'mean', num: true }, { t: 'std', num: true }, { t: 'zeros', num: true }, { t: 'not finite', num: true }];
  $('#net').append(alt('All tensors as a table', () => table(columns, R.T.slice(0, 5000).map((t) => ({ c: [
    { t: t.name + (t.tied != null ? ' = ' + t.tied : ''), v: t.name }, { t: t.dtype, v: t.dtype }, { t: t.shape, v: t.shape }, { t: int(t.n), v: t.n }, { t: int(t.bytes), v: t.bytes },
    { t: num(t.mean), v: t.mean }, { t: num(t.std), v: t.std }, { t: t.zeros == null ? '–' : percent(t.zeros, 2), v: t.zeros }, { t: int(t.nan), v: t.nan, cls: t.nan ? 'bad' : '' },
  ] })), { focus: 'all tensors' })));
  tensors();
}

function drawDetail(detail, t, data) {
  const w = Math.min(620, Math.floor(detail.clientWidth) || 560), total = R.T.reduce((sum, other) => sum + other.bytes, 0) || 1;
  const fact = (title, value, tone) => h('div', {}, h('dt', {}, title), h('dd', { class: tone || null }, value)), at = data.at[t.i];
  const facts = [fact('shape', t.shape), fact('dtype', t.dtype)];
  if (at != null) facts.push(fact('begins at byte', int(at)));
  facts.push(fact('NaN or infinite', int(t.nan), t.nan ? 'bad' : ''), fact('mean', num(t.mean)), fact('std', num(t.std)), fact('min', num(t.min)), fact('max', num(t.max)), fact('norm', num(t.norm)), fact('zeros', t.zeros == null ? '–' : percent(t.zeros, 2)));
  detail.replaceChildren(h('h3', { class: 'mono wrap' }, t.name),
    t.tied != null
      ? h('p', {}, 'Shares its bytes with ', h('code', {}, t.tied), '; it takes no space of its own.')
      : h('p', { class: 'muted small' }, `${plural(t.n, 'value')} · ${size(t.bytes)} · ${percent(t.bytes / total)} of the file`),
    histogram(t, w), t.tied != null ? '' : h('dl', { class: 'kv fit' }, facts), siblings(t, w));
}

function histogram(t, w) {
  if (!t.bars || t.min == null) return '';
  const left = 8, W = w - 16, H = 150, n = t.bars.length, g = s('svg', { width: w, height: H + 24, role: 'img', 'aria-label': `histogram of ${t.name}` });
  t.bars.forEach((bar, b) => {
    const y = (bar / 255) * (H - 10), x = left + (b / n) * W;
    g.append(s('rect', { x, y: H - y, width: W / n - 1, height: Math.max(y, 0.5), fill: 'var(--raw)' }), s('rect', { x, y: H - y, width: W / n - 1, height: 1.5, fill: 'var(--ink)' }));
  });
  g.append(line(left, H + 0.5, left + W, H + 0.5, 'var(--hair)'));
  for (const v of ticks(t.min, t.max, w / 90)) g.append(text(left + ((v - t.min) / (t.max - t.min || 1)) * W, H + 18, short(v), { 'text-anchor': 'middle' }));
  return g;
}

/** The same tensor in the other layers. */
function siblings(t, w) {
  const own = numbered(t.name);
  if (!own) return '';
  const all = R.T.filter((other) => {
    const n = numbered(other.name);
    return n && n.before === own.before && n.behind === own.behind && other.std != null;
  });
  if (all.length < 2) return '';
  const most = Math.max(...all.map((other) => other.std)) || 1;
  const row = (other) => h('tr', {}, h('td', { class: other === t ? '' : 'muted' }, h(other === t ? 'b' : 'span', {}, own.before + numbered(other.name).number)),
    h('td', { style: `width:${Math.min(260, w - 190)}px` }, h('span', { class: 'hm', style: `width:${(other.std / most) * 100}%;background:${other === t ? 'var(--ink)' : 'var(--raw)'}` })), h('td', { class: 'num' }, num(other.std)));
  return h('div', { class: 'across' }, h('h3', {}, 'The same tensor in all layers: std'), h('table', {}, h('tbody', {}, all.slice(0, 64).map(row))), all.length > 64 ? h('p', { class: 'muted tiny' }, `and ${all.length - 64} more`) : '');
}
