// The run as the other scripts see it: decoded columns, and what maps steps to times, attempts,
// epochs and values.

/** @type {any} The run; read anew when a served page has news. */
let R;

/** @param {Report} data */
function readRun(data) {
  const columns = data.checkpoints;
  R = {
    data,
    run: data.run,
    A: data.attempts,
    C: columns.step.map((step, i) => checkpoint(columns, step, i)),
    segs: data.clock.s.map((steps, i) => ({
      s: varint(steps),
      t: varint(data.clock.t[i]).map((ms) => data.clock.t0 + ms / 1000),
    })),
  };
  R.newest = R.C.at(-1);
  R.S0 = 0;
  R.S1 = Math.max(R.run.step, 1);
  R.T = tensorsOf(data.tensors);
  R.M = data.metrics.map(metricOf);
  const pace = paceOf();
  if (pace) R.M.push(pace);
}

function checkpoint(columns, step, i) {
  const flags = columns.flags[i], twins = columns.step.filter((other) => other === step).length > 1;
  return {
    i,
    step,
    attempt: columns.attempt[i],
    t: columns.t[i],
    size: columns.size[i],
    verified: !!(flags & 1),
    damaged: !!(flags & 2) || !!(flags & 32),
    nan: flags & 4 ? true : flags & 8 ? false : null,
    pinned: !!(flags & 16),
    unreadable: !!(flags & 32),
    why: columns.reasons[columns.why[i]].split('\n').filter(Boolean),
    anchor: `c${step}` + (twins ? `-${columns.attempt[i]}` : ''),
    m: Object.fromEntries(Object.entries(columns.m).map(([name, values]) => [name, values[i]])),
  };
}

/** @param {MetricData} m */
function metricOf(m) {
  const steps = varint(m.steps), values = f32(m.v);
  const metric = { ...m, s: steps, y: values, best: null, endsBad: false, isRate: false };
  if (m.dir && steps.length) {
    let at = 0;
    for (let i = 1; i < values.length; i++) if (m.dir === 'max' ? values[i] > values[at] : values[i] < values[at]) at = i;
    metric.best = { s: steps[at], v: values[at] };
  }
  const lastBad = m.nonfinite.at(-1)?.[1] ?? -1;
  metric.endsBad = lastBad > (steps.at(-1) ?? -1);
  metric.isRate = /(^|[_./ -])(lr|learning[_ ]rate)([_./ -]?\d*)$/i.test(m.name);
  return metric;
}

/** Seconds per step, from the clock itself; null where it does not say enough. */
function paceOf() {
  const s = [], y = [];
  for (const g of R.segs)
    for (let i = 1; i < g.s.length; i++) {
      const steps = g.s[i] - g.s[i - 1], time = g.t[i] - g.t[i - 1];
      if (steps > 0 && time > 0 && (!s.length || g.s[i] > s.at(-1))) {
        s.push(g.s[i]);
        y.push(time / steps);
      }
    }
  if (s.length < 8) return null;
  return { name: 'seconds per step', dir: null, why: '', derived: true, s, y, logged: s.length, nonfinite: [], best: null };
}

/** @param {TensorColumns} columns */
function tensorsOf(columns) {
  const mean = f32(columns.mean), std = f32(columns.std), norm = f32(columns.norm), zeros = f32(columns.zeros);
  const min = f32(columns.min), max = f32(columns.max), spark = bytesOf(columns.spark);
  const bad = new Map(columns.nan), ties = new Map(columns.ties);
  let name = '';
  return columns.rest.map((rest, i) => {
    name = name.slice(0, columns.keep[i]) + rest;
    const tied = ties.get(i) ?? null, has = norm[i] === norm[i];
    return {
      i,
      name,
      dtype: columns.dtypes[columns.dtype[i]],
      shape: columns.shapes[columns.shape[i]],
      n: columns.values[i],
      bytes: tied == null ? columns.bytes[i] : 0,
      tied,
      mean: has ? mean[i] : null,
      std: has ? std[i] : null,
      norm: has ? norm[i] : null,
      zeros: has ? zeros[i] : null,
      min: has ? min[i] : null,
      max: has ? max[i] : null,
      nan: bad.get(i) ?? 0,
      bars: spark.length > i * columns.bars && has ? spark.subarray(i * columns.bars, (i + 1) * columns.bars) : null,
    };
  });
}

/** The value at x of knots, straight lines between. */
function interpolate(xs, ys, x) {
  let a = 0, b = xs.length - 1;
  if (x <= xs[0]) return ys[0];
  if (x >= xs[b]) return ys[b];
  while (b - a > 1) {
    const middle = (a + b) >> 1;
    if (xs[middle] <= x) a = middle;
    else b = middle;
  }
  return ys[a] + ((ys[b] - ys[a]) * (x - xs[a])) / (xs[b] - xs[a] || 1);
}

/** The attempt whose work a step is today: the newest that went through it. */
function segOf(step) {
  let i = R.segs.length - 1;
  while (i > 0 && (!R.segs[i].s.length || step <= R.segs[i].s[0])) i--;
  return Math.max(0, i);
}
function timeAt(step) {
  const g = R.segs[segOf(step)];
  return g && g.s.length ? interpolate(g.s, g.t, step) : NaN;
}
/** The same of one attempt, its lost steps too. */
function timeIn(index, step) {
  const g = R.segs[index], a = R.A[index];
  if (!g || !g.s.length) return a?.start ?? NaN;
  return interpolate(g.s, g.t, step);
}
function stepAt(time) {
  for (let i = R.segs.length - 1; i >= 0; i--) {
    const g = R.segs[i];
    if (g.s.length && (time >= g.t[0] || i === 0)) return interpolate(g.t, g.s, time);
  }
  return 0;
}
const attemptAt = (step) => R.A[segOf(step)];
const epochOf = (step) => step / R.run.per_epoch;
/** The kept checkpoint nearest to a step. */
function near(step) {
  return R.C.reduce((best, c) => (!best || Math.abs(c.step - step) < Math.abs(best.step - step) ? c : best), null);
}

/** The value of a metric nearest to a step, of the same attempt if it has one. */
function valueAt(m, step) {
  for (const [from, to] of m.nonfinite) if (step >= from && step <= to) return { s: Math.round(step), v: NaN };
  if (!m.s.length || (m.endsBad && step > m.s.at(-1) && step >= m.nonfinite.at(-1)[0]))
    return { s: m.nonfinite.at(-1)?.[1] ?? step, v: NaN };
  let a = 0, b = m.s.length - 1;
  while (b - a > 1) {
    const middle = (a + b) >> 1;
    if (m.s[middle] <= step) a = middle;
    else b = middle;
  }
  const own = segOf(step), inOwn = (i) => segOf(m.s[i]) === own;
  const later = inOwn(b) && (!inOwn(a) || Math.abs(m.s[b] - step) < Math.abs(m.s[a] - step));
  const i = later ? b : a;
  return { s: m.s[i], v: m.y[i] };
}

/** A link to a checkpoint's row. */
const linkTo = (c, words) => h('a', { href: '#' + c.anchor }, words ?? 'step ' + int(c.step));

/** What is known of a checkpoint, in words that have colours. */
function stateOf(c) {
  if (c.unreadable) return h('span', { class: 'bad' }, 'cannot be read');
  if (c.damaged) return h('span', { class: 'bad' }, 'damaged');
  const how = c.verified ? 'verified' : 'index only';
  if (c.nan) return h('span', { class: 'nowrap' }, h('span', { class: 'bad' }, 'NaN'), h('span', { class: 'muted' }, ', ' + how));
  return h('span', { class: c.verified ? 'good' : 'muted' }, how);
}
const stateWord = (c) => stateOf(c).textContent;

// One cursor for everything.
const view = { x: 'step', y: 'auto', smooth: 4, range: null, cursor: null, pin: null, all: false };
/** @type {(() => void)[]} */
const onCursor = [];
const cursorStep = () => view.cursor ?? view.pin;
/** Moves the cursor; with a second argument, pins it there or, by null, frees it. */
function setCursor(step, pin) {
  if (pin !== undefined) view.pin = pin;
  view.cursor = step;
  onCursor.forEach((update) => update());
}
const visible = () => view.range || [R.S0, R.S1];
