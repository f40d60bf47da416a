// One chart of a metric: laid out in real pixels, drawn again when the width changes.

const LEFT = 46, RIGHT = 10, TOP = 6, BOTTOM = 20, HEIGHT = 150;
/** Metrics of fewer points are what they are. */
const SMOOTHED = 400;

/** The x axes there are. */
const AXES = {
  step: { of: (step) => step, back: (x) => x },
  epoch: { of: (step) => epochOf(step), back: (x) => x * R.run.per_epoch },
  time: { of: (step) => timeAt(step), back: (x) => stepAt(x) },
};

/** The half-life of smoothing, in steps; 0 for none. */
const halfLife = () => (view.smooth ? Math.max(1, Math.round((R.S1 / 400) * 1.78 ** (view.smooth - 4))) : 0);

function smoothed(m) {
  const half = halfLife();
  if (!half || m.s.length <= SMOOTHED) return null;
  const out = new Float64Array(m.s.length);
  let mean = m.y[0];
  for (let i = 0; i < m.s.length; i++) {
    if (i) mean += (m.y[i] - mean) * (1 - 2 ** (-(m.s[i] - m.s[i - 1]) / half));
    out[i] = mean;
  }
  return out;
}

/** The scale of y for some values: linear, or log where they span much. */
function yScale(values, height) {
  let lo = Infinity, hi = -Infinity;
  for (const y of values) {
    if (y < lo) lo = y;
    if (y > hi) hi = y;
  }
  if (!(hi >= lo)) [lo, hi] = [0, 1];
  const sorted = Float64Array.from(values).sort(), median = sorted[sorted.length >> 1];
  const log = lo > 0 && (view.y === 'log' ? hi / lo > 1.5 : view.y === 'auto' && hi / median > 12);
  if (log) {
    lo /= 1.08;
    hi *= 1.08;
  } else {
    const room = (hi - lo) * 0.06 || Math.abs(hi) * 0.1 || 1, least = lo;
    lo -= room;
    hi += room;
    if (least >= 0 && lo < 0) lo = 0;
  }
  const y = (v) => TOP + height - (log ? Math.log(v / lo) / Math.log(hi / lo) : (v - lo) / (hi - lo)) * height;
  return { y, log, ticks: log ? logTicks(lo, hi) : ticks(lo, hi, 4) };
}

/** A path through points: lowest and highest of each half pixel, so that no peak is lost. */
function pathOf(m, value, from, to, x, y) {
  let d = '', pen = false, column = -1, low = 0, high = 0, segment = -1;
  const flush = () => {
    if (column < 0) return;
    const a = y(low), b = y(high);
    d += `${pen ? 'L' : 'M'}${column} ${a.toFixed(1)}` + (a !== b ? `V${b.toFixed(1)}` : '');
    pen = true;
  };
  const bad = m.nonfinite;
  let k = 0;
  for (let i = from; i <= to; i++) {
    const at = Math.round(x(m.s[i]) * 2) / 2, v = value(i), seg = view.x === 'time' ? segOf(m.s[i]) : 0;
    let gap = seg !== segment;
    while (k < bad.length && bad[k][0] < m.s[i]) {
      if (i > from && bad[k][0] > m.s[i - 1]) gap = true;
      k++;
    }
    if (gap) {
      flush();
      column = -1;
      pen = false;
      segment = seg;
    }
    if (at !== column) {
      flush();
      column = at;
      low = high = v;
    } else {
      if (v < low) low = v;
      if (v > high) high = v;
    }
  }
  flush();
  return d;
}

/** What is under the metric's name: its best, and by which direction. */
function underName(m) {
  if (m.derived) return h('span', {}, 'from the clock of the run');
  if (m.best)
    return h('span', { title: m.why }, sign(ring(6, 7, 4), 12), `best ${num(m.best.v)} at ${int(m.best.s)}, ${m.dir === 'max' ? 'highest' : 'lowest'}`);
  return h('span', {}, m.isRate ? '' : 'no direction declared');
}

function chartOf(m) {
  const value = h('span', { class: 'v' }), scaleName = h('span', { class: 'right' });
  const svg = s('svg', {
    tabindex: 0, role: 'slider', 'aria-label': `${m.name}, crosshair`,
    'aria-valuemin': R.S0, 'aria-valuemax': R.S1, height: HEIGHT,
  });
  const element = h('figure', { class: 'chart' },
    h('div', { class: 'ch' }, h('b', { class: 'name', title: m.name }, m.name), value),
    h('div', { class: 'sub' }, underName(m), scaleName), svg);
  let width = 0, x = null, back = null, y = null, over = null;

  function draw() {
    width = Math.floor(element.clientWidth);
    if (!width) return;
    svg.setAttribute('width', width);
    const [a, b] = visible(), axis = AXES[view.x], xa = axis.of(view.x === 'time' ? Math.max(a, R.segs[0]?.s[0] ?? 0) : a), xb = axis.of(b);
    const W = width - LEFT - RIGHT, H = HEIGHT - TOP - BOTTOM;
    x = (step) => LEFT + ((axis.of(step) - xa) / (xb - xa || 1)) * W;
    back = (px) => Math.max(a, Math.min(b, axis.back(xa + ((px - LEFT) / W) * (xb - xa))));
    let from = 0, to = m.s.length - 1;
    while (from < to && m.s[from + 1] < a) from++;
    while (to > from && m.s[to - 1] > b) to--;
    const scale = yScale(m.y.slice(from, to + 1), H);
    y = scale.y;
    scaleName.textContent = scale.log ? 'log' : '';
    const g = s('g');
    drawAxes(g, scale, width, xa, xb, W, H);
    drawResumes(g, x, a, b, width, H);
    for (const [p, q] of m.nonfinite) {
      if (q < a || p > b) continue;
      const x0 = x(Math.max(p, a)), x1 = Math.max(x(Math.min(q, b)), x0 + 3);
      g.append(s('rect', { x: x0, y: TOP, width: x1 - x0, height: H, fill: 'url(#nanp)' }));
      if (x0 > LEFT + 30) g.append(text(x0 - 4, TOP + 11, 'NaN', { 'text-anchor': 'end', class: 'b' }));
      else g.append(text(x1 + 4, TOP + 11, 'NaN', { class: 'b' }));
    }
    if (m.s.length) drawCurve(g, from, to);
    if (m.best && m.best.s >= a && m.best.s <= b) g.append(ring(x(m.best.s), y(m.best.v)));
    svg.replaceChildren(g, (over = s('g')));
    cursor();
  }

  function drawCurve(g, from, to) {
    if (!R.run.has_history || m.s.length < 2) {
      for (let i = from; i <= to; i++) g.append(s('circle', { cx: x(m.s[i]), cy: y(m.y[i]), r: 2.4, fill: 'var(--ink)' }));
      return;
    }
    const smooth = smoothed(m);
    g.append(s('path', { d: pathOf(m, (i) => m.y[i], from, to, x, y), class: smooth ? 'raw' : 'ln' }));
    if (smooth) g.append(s('path', { d: pathOf(m, (i) => smooth[i], from, to, x, y), class: 'ln', 'stroke-width': 1.8 }));
  }

  function cursor() {
    if (!over) return;
    over.replaceChildren();
    const step = cursorStep(), [a, b] = visible();
    if (step == null) {
      const last = m.endsBad || !m.s.length ? NaN : m.y.at(-1);
      value.replaceChildren(h('span', { class: 'muted' }, 'last '), h('b', { class: last !== last ? 'bad' : null }, num(last)));
      svg.setAttribute('aria-valuetext', `${m.name}, newest ${num(last)}`);
      return;
    }
    const q = valueAt(m, step);
    value.replaceChildren(h('b', { class: q.v !== q.v ? 'bad' : null }, num(q.v)), h('span', { class: 'muted' }, ' at ' + int(q.s)));
    svg.setAttribute('aria-valuenow', Math.round(step));
    svg.setAttribute('aria-valuetext', `${num(q.v)} at step ${int(q.s)}`);
    if (step < a || step > b) return;
    const at = Math.round(x(step)) + 0.5;
    over.append(line(at, TOP, at, HEIGHT - BOTTOM, 'var(--text)', { opacity: view.pin != null && view.cursor == null ? 1 : 0.55 }));
    if (q.v === q.v && q.s >= a && q.s <= b)
      over.append(s('circle', { cx: x(q.s), cy: y(q.v), r: 3.2, fill: 'var(--ink)', stroke: 'var(--bg)', 'stroke-width': 1.5 }));
  }

  pointer(svg, () => x, (px) => back(px), HEIGHT - TOP - BOTTOM);
  onCursor.push(cursor);
  return { element, draw };
}

function drawAxes(g, scale, width, xa, xb, W, H) {
  for (const t of scale.ticks) {
    const at = Math.round(scale.y(t)) + 0.5;
    g.append(line(LEFT, at, width - RIGHT, at, 'var(--grid)'), text(LEFT - 7, at + 4, short(t), { 'text-anchor': 'end' }));
  }
  const marks = view.x === 'time' ? timeTicks(xa, xb, W / 70) : view.x === 'step' ? stepTicks(xa, xb, W / 80) : ticks(xa, xb, W / 80);
  let last = -99;
  for (const t of marks) {
    const at = LEFT + ((t - xa) / (xb - xa || 1)) * W;
    if (at - last < 46) continue;
    last = at;
    const label = view.x === 'time' ? timeLabel(t, xb - xa) : view.x === 'step' ? int(t) : String(+t.toFixed(2));
    g.append(line(at, TOP + H, at, TOP + H + 4, 'var(--hair)'),
      text(at, HEIGHT - 4, label, { 'text-anchor': at > width - 34 ? 'end' : 'middle' }));
  }
  g.append(line(LEFT, TOP + H + 0.5, width - RIGHT, TOP + H + 0.5, 'var(--hair)'));
}

/** Where attempts resumed, by the sign of how the one before ended; on the time axis, the gaps. */
function drawResumes(g, x, a, b, width, H) {
  const many = R.A.length > 12;
  R.A.forEach((attempt, i) => {
    if (!i || attempt.first < a || attempt.first > b) return;
    const before = R.A[i - 1], axis = AXES[view.x];
    if (view.x === 'time' && before.stop != null && attempt.start != null) {
      const [xa, xb] = [axis.of(Math.max(a, R.segs[0]?.s[0] ?? 0)), axis.of(b)], W = width - LEFT - RIGHT;
      const x0 = LEFT + ((before.stop - xa) / (xb - xa || 1)) * W, x1 = LEFT + ((attempt.start - xa) / (xb - xa || 1)) * W;
      if (x1 - x0 > 3) g.append(s('rect', { x: x0, y: TOP, width: x1 - x0, height: H, fill: 'url(#gap)', class: 'gap' }));
    }
    const at = x(attempt.first + (view.x === 'time' ? 0.5 : 0));
    if (many) {
      g.append(line(at, TOP + H - 5, at, TOP + H, before.end === 'killed' ? 'var(--bad)' : 'var(--muted)', { 'stroke-width': 1.5 }));
      return;
    }
    g.append(line(at, TOP, at, TOP + H, 'var(--hair)', { 'stroke-dasharray': '1 3' }), endSign(before.end === 'running' ? 'unknown' : before.end, at, TOP + H, 3));
  });
}

/** Mouse, finger and keys on a chart: the cursor, the pin, the zoom. */
function pointer(svg, x, back, height) {
  let down = null, box = null;
  const at = (event) => back(event.clientX - svg.getBoundingClientRect().left);
  svg.addEventListener('pointermove', (event) => {
    if (!x()) return;
    const step = at(event);
    if (down && Math.abs(event.clientX - down.x) > 5 && event.pointerType === 'mouse') {
      if (!box) svg.append((box = s('rect', { y: TOP, height, fill: 'var(--accent)', opacity: 0.16 })));
      const ends = [x()(down.step), x()(step)].sort((p, q) => p - q);
      box.setAttribute('x', ends[0]);
      box.setAttribute('width', ends[1] - ends[0]);
    }
    setCursor(step);
  });
  svg.addEventListener('pointerdown', (event) => {
    if (!x()) return;
    down = { x: event.clientX, step: at(event) };
    if (event.pointerType === 'mouse') svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener('pointerup', (event) => {
    if (!down) return;
    const step = at(event);
    if (box) {
      box.remove();
      box = null;
      const range = [down.step, step].sort((p, q) => p - q);
      if (range[1] - range[0] > Math.min(4, R.S1 / 100)) zoom(range);
    } else {
      setCursor(null, step);
    }
    down = null;
  });
  svg.addEventListener('pointerleave', () => down || setCursor(null));
  svg.addEventListener('dblclick', () => {
    setCursor(null, null);
    zoom(null);
  });
  svg.addEventListener('keydown', (event) => {
    const [a, b] = visible(), step = cursorStep() ?? b, d = (b - a) / 100, far = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: step - d * far, ArrowRight: step + d * far, PageDown: step - d * 10, PageUp: step + d * 10, Home: a, End: b }[event.key];
    if (to != null) setCursor(null, Math.max(a, Math.min(b, to)));
    else if (event.key === '+' || event.key === '=') zoomBy(0.5, step);
    else if (event.key === '-' || event.key === '−') zoomBy(2, step);
    else if (event.key === 'Escape') view.pin == null ? zoom(null) : setCursor(null, null);
    else return;
    event.preventDefault();
  });
}
