// What the page lists of checkpoints: damage as a strip over the file, cost, and the table.

function damage() {
  $$('#damage figure[data-damage]').forEach((figure) => {
    const d = R.data.damage[+figure.dataset.damage], svg = s('svg', { height: 44, role: 'img', 'aria-label': figure.dataset.label });
    figure.append(svg);
    const draw = () => {
      const w = Math.floor(figure.clientWidth);
      if (!w || !d.size) return;
      svg.setAttribute('width', w);
      const x = (byte) => (byte / d.size) * w, shapes = [];
      d.parts.forEach(([name, from, to], i) => {
        shapes.push(s('rect', { x: x(from), y: 14, width: Math.max(1, x(to) - x(from) - 1), height: 14, fill: `var(--t${i % 4})` }));
        if (x(to) - x(from) > 40) shapes.push(text(x(from), 41, fit(name, x(to) - x(from) - 4, false)));
      });
      d.at.forEach((byte, i) => {
        shapes.push(line(x(byte), 12, x(byte), 30, 'var(--bad)', { 'stroke-width': 3 }));
        if (!i) shapes.push(text(Math.min(Math.max(x(byte), 84), w - 84), 9, `byte ${int(byte)}`, { 'text-anchor': 'middle', class: 'b' }));
      });
      svg.replaceChildren(...shapes);
    };
    onSize.push(draw);
  });
}

function cost() {
  const root = $('#cost');
  if (!root) return;
  const steps = varint(R.data.saves.steps), stall = f32(R.data.saves.stall);
  if (steps.length < 3) return;
  const least = Math.max(1e-3, Math.min(...stall)), most = Math.max(least * 10, ...stall);
  const lo = 10 ** Math.floor(Math.log10(least)), hi = 10 ** Math.ceil(Math.log10(most));
  const svg = s('svg', { role: 'img', height: 110, 'aria-label': 'milliseconds each save held up training' });
  const figure = h('figure', { class: 'chart' }, h('div', { class: 'ch' }, h('b', {}, 'training held up by each save'), h('span', { class: 'v muted' }, 'ms, log')), svg);
  const draw = () => {
    const w = Math.floor(figure.clientWidth);
    if (!w) return;
    svg.setAttribute('width', w);
    const y = (v) => 90 - (Math.log(v / lo) / Math.log(hi / lo)) * 82, x = (step) => 36 + (step / R.S1) * (w - 48), shapes = [];
    for (const t of logTicks(lo, hi)) shapes.push(line(36, Math.round(y(t)) + 0.5, w - 8, Math.round(y(t)) + 0.5, 'var(--grid)'), text(29, y(t) + 4, short(t), { 'text-anchor': 'end' }));
    for (const t of stepTicks(0, R.S1, w / 110)) shapes.push(text(x(t), 106, int(t), { 'text-anchor': t ? (x(t) > w - 24 ? 'end' : 'middle') : 'start' }));
    steps.forEach((step, i) => shapes.push(s('circle', { cx: x(step), cy: y(Math.max(lo, stall[i])), r: 1.7, fill: 'var(--ink)', opacity: 0.75 })));
    svg.replaceChildren(...shapes);
  };
  root.insertBefore(figure, $('dl', root));
  root.append(alt('Saves as a table', () => table([{ t: 'step', num: true }, { t: 'held up, ms', num: true }],
    steps.map((step, i) => ({ c: [{ t: int(step), v: step }, { t: num(stall[i], 3), v: stall[i] }] })), { sort: 0, dir: -1, focus: 'saves' })));
  onSize.push(draw);
}

/** Rows that are shown before "show all". */
const ROWS = 200;
const list = { query: '', sort: 0, dir: -1, all: false };

function checkpoints() {
  const root = $('#checkpoints');
  if (!root || !R.C.length) return;
  const metrics = new Map(R.M.map((m) => [m.name, m])), place = (name) => R.M.findIndex((m) => m.name === name);
  const names = Object.keys(R.data.checkpoints.m).sort((a, b) => place(a) - place(b));
  const fixed = (v) => (v !== v ? 'NaN' : v > 0.001 && v < 1 ? v.toFixed(4) : v >= 1 && v < 1000 ? v.toPrecision(4) : num(v));
  let stale = false;
  const lastBefore = (m, step) => {
    if (!m || !m.s.length || m.s[0] > step) return null;
    const q = valueAt(m, step);
    if (q.v !== q.v) return q;
    let a = 0, b = m.s.length - 1;
    while (a < b) {
      const middle = (a + b + 1) >> 1;
      if (m.s[middle] <= step) a = middle;
      else b = middle - 1;
    }
    return { s: m.s[a], v: m.y[a] };
  };
  const metricCell = (c, name) => {
    const own = c.m[name], m = metrics.get(name);
    if (own === 'NaN') return { t: h('span', { class: 'bad' }, 'NaN'), v: null };
    if (typeof own === 'number') {
      const best = m?.best?.s === c.step;
      return { t: best ? h('b', { class: 'good nowrap' }, h('span', {}, 'best '), fixed(own)) : fixed(own), v: own };
    }
    const q = R.run.has_history ? lastBefore(m, c.step) : null;
    if (!q) return { t: '–', v: null };
    stale = true;
    return { t: h('span', { class: q.v !== q.v ? 'bad' : 'muted', title: 'measured at step ' + int(q.s) }, fixed(q.v) + '*'), v: q.v };
  };
  const words = (c) => [c.step, c.why.join(' '), c.damaged ? 'damaged' : c.nan ? 'nan' : c.verified ? 'verified' : 'index only', c.pinned ? 'pinned' : '', 'attempt ' + c.attempt].join(' ').toLowerCase();
  const row = (c) => ({ id: c.anchor, c: [
    { t: h('b', {}, int(c.step)), v: c.step },
    { t: stateOf(c), v: c.damaged ? 0 : c.nan ? 1 : c.verified ? 2 : 3 },
    ...(R.run.per_epoch ? [{ t: epochOf(c.step).toFixed(2), v: c.step }] : []),
    { t: c.attempt, v: c.attempt },
    { t: c.t ? h('time', { 'data-t': c.t, class: 'nowrap' }, ago(now() - c.t)) : '–', v: c.t || null },
    ...names.map((name) => metricCell(c, name)),
    { t: size(c.size), v: c.size },
    { t: c.why.join(', ') || 'goes with the next save', v: c.why.length },
  ] });
  const heads = [{ t: 'step', num: true }, { t: 'state' }, ...(R.run.per_epoch ? [{ t: 'epoch', num: true }] : []), { t: 'attempt', num: true }, { t: 'saved' }, ...names.map((t) => ({ t, num: true })), { t: 'size', num: true }, { t: 'kept because' }];
  const more = h('p', { class: 'more' });
  function build() {
    const found = R.C.filter((c) => !list.query || words(c).includes(list.query));
    const shown = list.all || list.query || found.length <= ROWS ? found : found.slice(-ROWS);
    more.replaceChildren(...(shown.length < found.length ? [`The newest ${ROWS}. `, h('button', { type: 'button', id: 'all-rows', onclick: () => {
      list.all = true;
      again();
    } }, `Show all ${int(found.length)}`)] : found.length ? [] : [`No checkpoint matches “${list.query}”. `, h('button', { type: 'button', class: 'link', onclick: () => {
      filter.value = list.query = '';
      again();
    } }, 'Clear the filter')]));
    return table(heads, shown.map(row), { sort: list.sort, dir: list.dir, focus: 'checkpoints', cls: 'ck', onsort: (key, dir) => Object.assign(list, { sort: key, dir }) });
  }
  let shown = build();
  const again = () => {
    const next = build();
    shown.replaceWith(next);
    shown = next;
    mark();
  };
  const filter = h('input', { type: 'search', id: 'cfilter', placeholder: 'filter: best, pinned, attempt 3', 'aria-label': 'filter checkpoints', value: list.query,
    oninput: () => {
      list.query = filter.value.trim().toLowerCase();
      again();
    } });
  $('.tw', root)?.replaceWith(shown);
  $('.beyond', root)?.remove();
  root.insertBefore(h('div', { class: 'bar' }, filter, stale ? h('span', { class: 'muted' }, '* measured at the last evaluation before this step') : ''), shown);
  shown.after(more);
  const mark = () => {
    $$('tr.on').forEach((other) => other.classList.remove('on'));
    const id = location.hash.slice(1);
    if (!/^c\d+(-\d+)?$/.test(id)) return;
    if (!document.getElementById(id) && !list.all && R.C.some((c) => c.anchor === id)) {
      list.all = true;
      return again();
    }
    const found = document.getElementById(id);
    found?.classList.add('on');
    found?.scrollIntoView({ block: 'center' });
  };
  onHash = mark;
  mark();
}
/** @type {() => void} */
let onHash = () => {};
addEventListener('hashchange', () => onHash());
