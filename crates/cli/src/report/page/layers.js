// Statistics of every tensor over the kept checkpoints, as a heat map.

const AXIS = 24;
const MEASURES = { update: 'update / weight', norm: 'norm', std: 'std', zeros: 'zeros' };
const HEAT_WORDS = {
  update: 'change per step relative to the norm; zero is an empty cell',
  norm: 'norm, against the first that is drawn',
  std: 'std, against the first that is drawn',
  zeros: 'share of zeros',
};
const heat = { measure: 'update', open: /** @type {Set<string> | null} */ (null), all: false, row: -1, column: null, cell: null };

/** The module of a tensor: `layers.4` of `layers.4.mlp.gate.weight`. */
function moduleOf(name) {
  const parts = name.split(/[./]/), number = parts.findIndex((part, i) => i > 0 && /^\d+$/.test(part));
  if (number > 0) return name.slice(0, parts.slice(0, number + 1).join('.').length);
  return parts.length > 1 ? name.slice(0, name.length - parts.at(-1).length - 1) : name;
}

/** A module of several rows is √Σ‖w‖² in norm, weighted by size in the rest; any NaN makes it NaN. */
function together(values, counts, measure, rows, columns, column) {
  let sum = 0, n = 0;
  for (const row of rows) {
    const v = values[row * columns + column], count = counts[row];
    if (v !== v) return NaN;
    sum += measure === 'norm' ? v * v : measure === 'zeros' ? v * count : v * v * count;
    n += count;
  }
  return measure === 'norm' ? Math.sqrt(sum) : measure === 'zeros' ? sum / n : Math.sqrt(sum / n);
}

function layers() {
  const root = $('#layers'), data = R.data.heat;
  if (!root || !data || !data.labels.length) return;
  const cols = data.cols.map((i) => R.C[i]), K = cols.length, labels = data.labels;
  const values = Object.fromEntries(Object.keys(MEASURES).map((key) => [key, logScale(data[key])]));
  const modules = [...new Set(labels.map((name, i) => (data.tensor[i] < 0 ? name : moduleOf(name))))];
  const firstBad = data.first_nan;
  /** The largest tensor that has histograms: small ones have ragged ones. */
  const mostValues = () => (R.data.ridge?.rows ?? []).reduce((best, row) => (data.count[row] > data.count[best] ? row : best), R.data.ridge?.rows[0] ?? 0);
  if (heat.row < 0) heat.row = firstBad ? firstBad[0] : mostValues();
  if (!heat.open) heat.open = new Set(firstBad ? [moduleOf(labels[firstBad[0]])] : modules.length < 2 ? modules : []);
  let /** @type {any[]} */ rows = [], geometry = null, RH = 20, colour = null, lo = 0, hi = 1, extent = 1;

  function build() {
    rows = [];
    for (const name of modules) {
      const ix = labels.map((_, i) => i).filter((i) => (data.tensor[i] < 0 ? labels[i] : moduleOf(labels[i])) === name);
      const group = ix.length > 1, open = group && (heat.all || heat.open.has(name));
      rows.push({ module: name, ix, label: group ? name : labels[ix[0]], group, open, leaf: group ? -1 : ix[0] });
      if (open) for (const i of ix) rows.push({ module: name, ix: [i], label: labels[i].slice(name.length + 1), leaf: i });
    }
    for (const row of rows)
      row.v = Object.fromEntries(Object.keys(MEASURES).map((key) =>
        [key, cols.map((_, c) => (row.ix.length === 1 ? values[key][row.ix[0] * K + c] : together(values[key], data.count, key, row.ix, K, c)))]));
  }
  build();

  const canvas = h('canvas', { 'aria-hidden': 'true' });
  const over = s('svg', { class: 'over', tabindex: 0, role: 'application', 'aria-label': 'heat map of tensors over kept checkpoints; arrow keys move, Enter opens' });
  const names = h('div', { class: 'names' }), box = h('div', { class: 'heat' }, canvas, over, names);
  const read = h('p', { class: 'read', id: 'cell', 'aria-live': 'polite' }), side = h('div', { id: 'ridge' }), legend = h('div', { class: 'legend' });
  const relative = () => heat.measure === 'norm' || heat.measure === 'std';
  const first = (row) => row.v[heat.measure].find((v) => v === v && v > 0) ?? 1;
  const shown = (row, c) => (relative() ? row.v[heat.measure][c] / first(row) : row.v[heat.measure][c]);
  const label = (v) => {
    if (v !== v) return 'NaN';
    if (relative()) return (v >= 1 ? '+' : '−') + Math.abs((v - 1) * 100).toFixed(1) + ' %';
    return heat.measure === 'zeros' ? percent(v, 2) : num(v, 3);
  };

  function palette() {
    const dark = rgb(css('--bg'))[0] < 80, pale = dark ? [27, 34, 46] : [238, 243, 251], full = dark ? [164, 197, 255] : [18, 52, 128];
    const middle = dark ? [40, 43, 48] : [240, 240, 237], more = dark ? [255, 160, 90] : [176, 70, 8], less = dark ? [120, 165, 255] : [29, 85, 196];
    const all = rows.flatMap((row) => cols.map((_, c) => shown(row, c))).filter((v) => v > 0 && isFinite(v)).sort((a, b) => a - b);
    lo = all[Math.floor(all.length * 0.02)] ?? 1e-9;
    hi = all.at(-1) ?? 1;
    extent = Math.max(0.05, ...all.map((v) => Math.abs(Math.log(v))));
    colour = (v) => {
      if (relative()) {
        if (!(v > 0)) return mix(middle, middle, 0);
        const t = Math.max(-1, Math.min(1, Math.log(v) / extent));
        return mix(middle, t < 0 ? less : more, Math.abs(t) ** 0.6);
      }
      return v > 0 && hi > lo ? mix(pale, full, Math.max(0, Math.min(1, Math.log(v / lo) / Math.log(hi / lo)))) : mix(pale, pale, 0);
    };
  }

  function draw() {
    const w = Math.floor(box.clientWidth);
    if (!w) return;
    RH = innerWidth <= 640 ? 26 : 20;
    const left = w < 560 ? 104 : 150, resumes = cols.map((c, i) => cols.slice(1, i + 1).filter((d, k) => d.attempt !== cols[k].attempt).length);
    const gap = Math.min(3, (w / 4) / Math.max(1, resumes.at(-1))), cw = (w - left - 2 - resumes.at(-1) * gap) / K, H = rows.length * RH;
    geometry = { left, cw, gap, H, w, x: (i) => left + i * cw + resumes[i] * gap };
    palette();
    paint(w, H);
    names.replaceChildren(...rows.map((row, i) => nameButton(row, i, left)));
    overlay(w, H);
    const grade = relative()
      ? [1 / Math.exp(extent), 1 / Math.exp(extent / 3), 1, Math.exp(extent / 3), Math.exp(extent)]
      : [lo, ...[0.25, 0.5, 0.75].map((q) => lo * (hi / lo) ** q), hi];
    const hasBad = rows.some((row) => row.v.norm.some((v) => v !== v));
    legend.replaceChildren(...[
      h('span', { class: 'nw' }, label(grade[0]), h('i', { class: 'grade', style: `background:linear-gradient(90deg,${grade.map(colour)})` }), label(grade[4])),
      h('span', {}, HEAT_WORDS[heat.measure]),
      hasBad && h('span', {}, h('i', { class: 'nancell' }, '×'), 'has NaN or infinity'),
      resumes.at(-1) > 0 && h('span', {}, 'narrow gaps are resumes'),
    ].filter(Boolean));
    tell();
  }

  function paint(w, H) {
    const scale = Math.min(devicePixelRatio || 1, 2);
    canvas.width = w * scale;
    canvas.height = H * scale;
    canvas.style.cssText = `width:${w}px;height:${H}px;margin-bottom:${AXIS}px`;
    const pen = canvas.getContext('2d'), bad = css('--bad'), ground = css('--bg'), hair = css('--hair');
    pen.scale(scale, scale);
    rows.forEach((row, i) =>
      cols.forEach((_, j) => {
        const v = shown(row, j), at = geometry.x(j), x0 = Math.round(at * scale) / scale;
        const x1 = Math.max(x0 + 1 / scale, Math.round((at + geometry.cw) * scale) / scale - (geometry.cw > 7 ? 1 : 0)), y = i * RH;
        if (v !== v) {
          pen.fillStyle = bad;
          pen.fillRect(x0, y + 1, x1 - x0, RH - 2);
          crossOut(pen, (x0 + x1) / 2, y + RH / 2, Math.min(3.5, (x1 - x0) / 2 - 1), ground);
        } else if (v === 0 && heat.measure === 'update') {
          pen.strokeStyle = hair;
          pen.lineWidth = 1;
          pen.strokeRect(x0 + 0.5, y + 1.5, Math.max(0.5, x1 - x0 - 1), RH - 3);
        } else {
          pen.fillStyle = colour(v);
          pen.fillRect(x0, y + 1, x1 - x0, RH - 2);
        }
      }));
  }

  function crossOut(pen, x, y, r, colour) {
    if (r < 1) return;
    pen.strokeStyle = colour;
    pen.lineWidth = 1.4;
    pen.beginPath();
    pen.moveTo(x - r, y - r);
    pen.lineTo(x + r, y + r);
    pen.moveTo(x + r, y - r);
    pen.lineTo(x - r, y + r);
    pen.stroke();
  }

  function nameButton(row, i, left) {
    const bad = row.group && row.v.norm.some((v) => v !== v), room = left - 6 - 14 - (bad ? 30 : 0);
    return h('button', {
      type: 'button', tabindex: row.group ? 0 : -1, 'aria-expanded': row.group ? String(row.open) : null,
      class: row.group ? 'group' : i === chosenRow() ? 'on' : '', title: row.label,
      style: `top:${i * RH}px;width:${left - 6}px;height:${RH}px;line-height:${RH}px`,
      onclick: () => (row.group ? toggle(row.module) : choose(row.leaf)),
    }, row.group ? h('span', { class: 'fold', 'aria-hidden': 'true' }, row.open ? '▾' : '▸') : '', fit(row.label, room, row.group), bad ? h('span', { class: 'bad' }, ' NaN') : '');
  }

  function overlay(w, H) {
    over.setAttribute('width', w);
    over.setAttribute('height', H + AXIS);
    const g = s('g'), marks = s('g');
    let last = -99;
    cols.forEach((c, i) => {
      const at = geometry.x(i);
      if (!((at - last > 62 && at < w - 84) || i === K - 1)) return;
      last = at;
      g.append(line(at + geometry.cw / 2, H, at + geometry.cw / 2, H + 4, 'var(--hair)'),
        text(i === K - 1 ? w - 2 : at + geometry.cw / 2, H + 17, int(c.step), { 'text-anchor': i === K - 1 ? 'end' : 'middle' }));
    });
    g.append(marks);
    over.marks = () => {
      marks.replaceChildren();
      const step = cursorStep();
      if (step == null) return;
      const j = cols.reduce((best, c, k) => (Math.abs(c.step - step) < Math.abs(cols[best].step - step) ? k : best), 0);
      marks.append(s('rect', { x: geometry.x(j) - 1, y: 0, width: geometry.cw + 1, height: H, fill: 'none', stroke: 'var(--text)', opacity: 0.6, class: 'column' }));
    };
    over.marks();
    if (heat.cell) g.append(s('rect', { x: geometry.x(heat.cell[1]) - 1.5, y: heat.cell[0] * RH, width: geometry.cw + 2, height: RH, fill: 'none', stroke: 'var(--text)', 'stroke-width': 2 }));
    const row = chosenRow();
    if (row >= 0) g.append(s('rect', { x: geometry.left - 2, y: row * RH, width: w - geometry.left, height: RH, fill: 'none', stroke: 'var(--accent)', 'stroke-width': 1.5 }));
    over.replaceChildren(g);
  }

  function tell() {
    if (heat.cell) {
      const row = rows[heat.cell[0]], j = heat.cell[1], zeros = row.v.zeros[j];
      read.replaceChildren(h('b', {}, row.group ? row.label + ' (all)' : labels[row.leaf]),
        ` · step ${int(cols[j].step)} · update ${j ? num(row.v.update[j], 3) : '–'} · norm ${num(row.v.norm[j])} · std ${num(row.v.std[j])} · zeros ${zeros === zeros ? percent(zeros, 2) : '–'}`);
    } else if (firstBad) {
      const [row, j] = firstBad;
      read.replaceChildren('First NaN or infinity: ', h('b', {}, labels[row]), ` at step ${int(cols[j].step)}.`);
    } else {
      read.replaceChildren('All finite. ', h('span', { class: 'hint' }, 'Point at a cell for its numbers.'));
    }
  }

  const chosenRow = () => rows.findIndex((row) => !row.group && row.leaf === heat.row);
  const toggle = (module) => {
    if (heat.all) {
      heat.all = false;
      heat.open = new Set(modules);
      unfold.textContent = 'Unfold all';
    }
    heat.open.has(module) ? heat.open.delete(module) : heat.open.add(module);
    heat.cell = null;
    build();
    draw();
  };
  const choose = (leaf, column) => {
    heat.row = leaf;
    heat.column = column ?? null;
    drawRidge();
    draw();
  };
  const drawRidge = () => ridge(side, data, values, cols);
  const hit = (event) => {
    const frame = over.getBoundingClientRect(), px = event.clientX - frame.left, i = Math.floor((event.clientY - frame.top) / RH);
    if (i < 0 || i >= rows.length) return null;
    const j = cols.findIndex((_, k) => px >= geometry.x(k) && px < geometry.x(k) + geometry.cw + geometry.gap);
    return j < 0 ? null : [i, j];
  };
  const point = (cell) => {
    if (String(cell) === String(heat.cell)) return;
    heat.cell = cell;
    overlay(geometry.w, geometry.H);
    tell();
  };
  over.addEventListener('pointermove', (event) => point(hit(event)));
  over.addEventListener('pointerleave', () => point(null));
  over.addEventListener('click', (event) => {
    const cell = hit(event);
    if (!cell) return;
    const row = rows[cell[0]];
    row.group ? toggle(row.module) : choose(row.leaf, cell[1]);
  });
  over.addEventListener('keydown', (event) => {
    const [i, j] = heat.cell || [Math.max(0, chosenRow()), K - 1];
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -K], End: [0, K] }[event.key];
    if (by) point([Math.max(0, Math.min(rows.length - 1, i + by[0])), Math.max(0, Math.min(K - 1, j + by[1]))]);
    else if (event.key === 'Enter' || event.key === ' ') rows[i].group ? toggle(rows[i].module) : choose(rows[i].leaf, j);
    else return;
    event.preventDefault();
  });
  const unfold = h('button', { type: 'button', 'aria-pressed': String(heat.all), onclick: () => {
    heat.all = !heat.all;
    unfold.setAttribute('aria-pressed', String(heat.all));
    unfold.textContent = heat.all ? 'Fold all' : 'Unfold all';
    if (!heat.all) heat.open = new Set(firstBad ? [moduleOf(labels[firstBad[0]])] : []);
    heat.cell = null;
    build();
    draw();
  } }, heat.all ? 'Fold all' : 'Unfold all');
  root.append(
    h('div', { class: 'bar' }, seg('measure', /** @type {any} */ (Object.entries(MEASURES)), heat.measure, (v) => {
      heat.measure = v;
      draw();
    }), modules.length < labels.length ? unfold : ''),
    h('div', { class: 'two' }, h('div', {}, read, box, legend, alt('Heat map as a table', () => heatTable(data, values, cols))), side));
  onSize.push(draw, drawRidge);
  onTheme.push(draw);
  onCursor.push(() => over.marks?.());
}

function heatTable(data, values, cols) {
  const every = Math.max(1, Math.floor(cols.length / 9)), shown = cols.map((_, i) => i).filter((i) => i % every === 0 || i >= cols.length - 3);
  const cell = (row, i) => {
    const v = values[heat.measure][row * cols.length + i];
    return { t: heat.measure === 'zeros' && v === v ? percent(v, 2) : num(v, 3), v, cls: v !== v ? 'bad' : '' };
  };
  return table([{ t: 'tensor' }, ...shown.map((i) => ({ t: int(cols[i].step), num: true }))],
    data.labels.map((name, row) => ({ c: [{ t: name, v: name }, ...shown.map((i) => cell(row, i))] })), { focus: `${heat.measure} as a table` });
}
