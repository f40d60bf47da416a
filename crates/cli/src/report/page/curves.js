// The curves' section: the charts, what they share, and their table.

/** Charts that are drawn before "show all". */
const FIRST = 12;
/** @type {{element: any, draw: () => void}[]} */
let charts = [];
const drawCurves = () => charts.forEach((chart) => chart.draw());

function zoom(range) {
  view.range = range && [Math.max(R.S0, range[0]), Math.min(R.S1, range[1])];
  if (view.range && view.range[1] - view.range[0] > R.S1 * 0.995) view.range = null;
  const reset = $('#reset');
  if (reset) reset.disabled = !view.range;
  drawCurves();
  onCursor.forEach((update) => update());
}
function zoomBy(factor, centre) {
  const [a, b] = visible(), middle = centre ?? cursorStep() ?? (a + b) / 2, width = (b - a) * factor;
  if (width < Math.min(20, R.S1 / 10)) return;
  zoom([middle - (width * (middle - a)) / (b - a), middle + (width * (b - middle)) / (b - a)]);
}

function curves() {
  const root = $('#curves');
  if (!root || !R.M.length) return;
  const single = R.M.filter((m) => m.s.length + m.nonfinite.length === 1);
  const drawn = R.M.filter((m) => !single.includes(m));
  charts = (view.all ? drawn : drawn.slice(0, FIRST)).map(chartOf);
  const grid = h('div', { class: 'charts' }, charts.map((chart) => chart.element));
  const more = drawn.length > FIRST && !view.all
    ? h('button', { type: 'button', id: 'all-charts', onclick: () => {
        view.all = true;
        const rest = drawn.slice(FIRST).map(chartOf);
        charts.push(...rest);
        grid.append(...rest.map((chart) => chart.element));
        drawCurves();
        more.remove();
      } }, `Show all ${drawn.length} charts`)
    : null;
  const body = [];
  if (drawn.length) body.push(curvesBar(), readOut(), grid, more && h('p', { class: 'more' }, more), curvesLegend(drawn));
  if (single.length)
    body.push(h('p', { class: 'ones' }, 'Logged once: ', single.flatMap((m, i) => {
      const q = m.s.length ? { v: m.y[0], s: m.s[0] } : { v: NaN, s: m.nonfinite[0][0] };
      return [i ? ', ' : '', m.name + ' ', h('b', {}, num(q.v)), ` at ${int(q.s)}`];
    }), '.'));
  body.push(alt('Curves as a table', () => curvesTable()));
  root.append(...body.filter(Boolean));
  onSize.push(drawCurves);
}

function curvesBar() {
  const axes = [['step', 'step']];
  if (R.run.per_epoch) axes.push(['epoch', 'epoch']);
  if (R.segs.some((g) => g.t.length > 1 && g.t.at(-1) > g.t[0])) axes.push(['time', 'wall time']);
  const parts = [];
  if (axes.length > 1)
    parts.push(seg('x axis', /** @type {any} */ (axes), view.x, (value) => {
      view.x = value;
      drawCurves();
    }));
  parts.push(seg('y axis', [['auto', 'auto'], ['linear', 'linear'], ['log', 'log']], view.y, (value) => {
    view.y = value;
    drawCurves();
  }));
  if (R.M.some((m) => m.s.length > SMOOTHED)) parts.push(smoothing());
  parts.push(h('span', { class: 'tag' }, h('span', { class: 'muted' }, 'zoom'),
    h('button', { type: 'button', 'aria-label': 'zoom in', onclick: () => zoomBy(0.5) }, '+'),
    h('button', { type: 'button', 'aria-label': 'zoom out', onclick: () => zoomBy(2) }, '−'),
    h('button', { type: 'button', id: 'reset', disabled: !view.range, onclick: () => zoom(null) }, 'Reset')));
  return h('div', { class: 'bar' }, parts);
}

function smoothing() {
  const shown = h('output', { class: 'muted half' });
  const slider = h('input', { type: 'range', id: 'smooth', min: 0, max: 10, step: 1, value: view.smooth, 'aria-label': 'smoothing, half-life in steps' });
  const say = () => {
    shown.textContent = halfLife() ? plural(halfLife(), 'step') : 'off';
    slider.setAttribute('aria-valuetext', shown.textContent);
  };
  slider.addEventListener('input', () => {
    view.smooth = +slider.value;
    say();
    drawCurves();
  });
  say();
  return h('label', { class: 'tag', title: 'half-life of the average' }, h('span', { class: 'muted' }, 'smoothing'), slider, shown);
}

/** Where the cursor is, in words. */
function readOut() {
  const out = h('p', { class: 'read', id: 'at', 'aria-live': 'off' });
  const update = () => {
    const step = cursorStep();
    if (step == null) {
      out.replaceChildren(h('span', { class: 'hint' }, 'Point at a curve for its values; drag to zoom, click to pin. Keys: arrows, + and −, Esc.'));
      return;
    }
    const attempt = attemptAt(step), kept = near(step), time = timeAt(step), parts = [h('b', {}, `step ${int(step)}`)];
    if (R.run.per_epoch) parts.push(` · epoch ${epochOf(step).toFixed(2)}`);
    if (time === time) parts.push(` · ${day(time)} ${R.S1 > 0 && paceIsFast() ? seconds(time) : clock(time)}`);
    if (attempt) parts.push(` · attempt ${attempt.n}` + (attempt.host ? ` on ${attempt.host}` : ''));
    if (kept) parts.push(' · nearest kept ', linkTo(kept, int(kept.step)));
    if (view.pin != null && view.cursor == null) parts.push(' · pinned, Esc frees');
    out.replaceChildren(...parts);
  };
  onCursor.push(update);
  update();
  return out;
}
const paceIsFast = () => {
  const g = R.segs.at(-1);
  return g && g.t.length > 1 && g.t.at(-1) - g.t[0] < 3600;
};

function curvesLegend(drawn) {
  const ends = new Set(R.A.slice(0, -1).map((a) => a.end)), many = R.A.length > 12, entries = [];
  if (drawn.some((m) => m.best)) entries.push(entry(ring(7, 7, 4), 'best, where a direction is known'));
  if (ends.has('killed')) entries.push(entry(many ? line(7, 3, 7, 11, 'var(--bad)', { 'stroke-width': 1.5 }) : cross(7, 7, 3.5), 'killed, resumed here'));
  if (ends.has('stopped')) entries.push(entry(square(7, 7, 3.5), 'stopped by a signal'));
  if (ends.has('closed')) entries.push(entry(square(7, 7, 3.5), 'closed, and gone on from'));
  if (drawn.some((m) => m.s.length > SMOOTHED))
    entries.push(entry([s('path', { d: 'M1 10L4 3L7 11L10 2L14 9', class: 'raw' }), s('path', { d: 'M1 8L7 6.5L14 5.5', class: 'ln' })], 'pale: every step; line: smoothed'));
  if (drawn.some((m) => m.nonfinite.length)) entries.push(entry(s('rect', { x: 1, y: 1, width: 13, height: 12, fill: 'url(#nanp)' }), 'not finite'));
  if (R.A.length > 1) entries.push(entry(s('rect', { x: 1, y: 1, width: 13, height: 12, fill: 'url(#gap)' }), 'nothing ran, on the time axis'));
  return h('div', { class: 'legend' }, entries);
}

function curvesTable() {
  const rows = [], count = Math.min(30, R.S1), logged = R.M.reduce((sum, m) => sum + (m.derived ? 0 : m.logged), 0);
  for (let i = 0; i <= count; i++) {
    const step = Math.max(1, Math.round((R.S1 * i) / count)), time = timeAt(step);
    rows.push({ c: [
      { t: int(step), v: step },
      ...(R.run.per_epoch ? [{ t: epochOf(step).toFixed(2), v: step }] : []),
      { t: time === time ? stamp(time) : '–', v: time },
      ...R.M.map((m) => {
        const q = valueAt(m, step);
        return { t: num(q.v), v: q.v, cls: q.v !== q.v ? 'bad' : '' };
      }),
    ] });
  }
  const heads = [{ t: 'step', num: true }, ...(R.run.per_epoch ? [{ t: 'epoch', num: true }] : []), { t: 'time' }, ...R.M.map((m) => ({ t: m.name, num: true }))];
  return h('div', {},
    h('p', { class: 'muted' }, `${rows.length} steps of ${int(logged)} logged values; `,
      h('button', { type: 'button', class: 'link', onclick: () => download(`${R.run.name}.csv`, curvesCsv()) }, 'all points as CSV')),
    table(heads, rows, { sort: 0, dir: 1, focus: 'curves as a table' }));
}

function curvesCsv() {
  const field = (t) => (/[",\n]/.test(t) ? `"${t.replace(/"/g, '""')}"` : t), out = ['metric,step,epoch,time,value'];
  for (const m of R.M)
    m.s.forEach((step, i) => {
      const time = timeAt(step), epoch = R.run.per_epoch ? epochOf(step).toFixed(4) : '';
      out.push([field(m.name), step, epoch, time === time ? new Date(time * 1000).toISOString() : '', m.y[i]].join(','));
    });
  return out.join('\n') + '\n';
}
