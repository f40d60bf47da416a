// Elements, bytes, numbers and dates: what all other scripts are written in.

const $ = (/** @type {string} */ query, /** @type {ParentNode} */ within = document) =>
  /** @type {any} */ (within.querySelector(query));
const $$ = (/** @type {string} */ query, /** @type {ParentNode} */ within = document) =>
  /** @type {any[]} */ ([...within.querySelectorAll(query)]);

/**
 * A function that makes elements: text is always a text node, so that no name becomes markup.
 * @param {string} [space] the namespace, where it is not HTML's
 * @returns {(tag: string, attributes?: object, ...kids: any[]) => any}
 */
const maker = (space) => (tag, attributes = {}, ...kids) => {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  for (const kid of kids.flat(9)) if (kid != null && kid !== false) element.append(kid);
  return element;
};
const h = maker();
const s = maker('http://www.w3.org/2000/svg');

// Bytes.
const bytesOf = (/** @type {string} */ text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const f32 = (/** @type {string} */ text) => new Float32Array(bytesOf(text).buffer);
const u16 = (/** @type {string} */ text) => new Uint16Array(bytesOf(text).buffer);

/** Sums of deltas. @param {string} text @returns {number[]} */
function varint(text) {
  const out = [];
  let delta = 0, scale = 1, sum = 0;
  for (const byte of bytesOf(text)) {
    delta += (byte & 127) * scale;
    if (byte & 128) {
      scale *= 128;
    } else {
      out.push((sum += delta));
      delta = 0;
      scale = 1;
    }
  }
  return out;
}

/** @param {LogScale} scale @returns {Float64Array} NaN where not finite */
function logScale(scale) {
  const raw = u16(scale.q), out = new Float64Array(raw.length);
  for (let i = 0; i < raw.length; i++) {
    if (raw[i] === 65535) out[i] = NaN;
    else out[i] = raw[i] === 0 ? 0 : Math.exp(scale.lo + ((raw[i] - 1) / 65533) * (scale.hi - scale.lo));
  }
  return out;
}

// Numbers.
const int = (/** @type {number} */ n) => Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, ',');
const plural = (n, word) => `${int(n)} ${word}${n === 1 ? '' : 's'}`;

/** Four digits that matter; NaN by name. */
function num(/** @type {number | null} */ value, digits = 4) {
  if (value == null) return '–';
  if (value !== value) return 'NaN';
  if (!isFinite(value)) return value > 0 ? '∞' : '−∞';
  if (value === 0) return '0';
  const size = Math.abs(value), minus = value < 0 ? '−' : '';
  if (size >= 1e5 || size < 1e-3) return minus + size.toExponential(2).replace('e+', 'e').replace('e-', 'e−');
  return minus + (size >= 1000 ? int(size) : String(+size.toPrecision(digits)));
}

/** For axes: 3e-5, 12k. */
function short(/** @type {number} */ value) {
  if (value === 0) return '0';
  const size = Math.abs(value), sign = value < 0 ? '−' : '';
  const of = (v, unit) => sign + String(+v.toPrecision(3)) + unit;
  if (size >= 1e12 || size < 1e-3) return sign + size.toExponential(1).replace('.0e', 'e').replace('e+', 'e');
  if (size >= 1e9) return of(size / 1e9, 'G');
  if (size >= 1e6) return of(size / 1e6, 'M');
  return size >= 1e4 ? of(size / 1e3, 'k') : of(size, '');
}

function size(/** @type {number} */ bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (bytes >= 1024 && unit < 5) {
    bytes /= 1024;
    unit++;
  }
  return (unit && bytes < 10 ? bytes.toFixed(1) : unit > 2 && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)) + ' ' + units[unit];
}

const percent = (/** @type {number} */ share, digits = 1) => (share * 100).toFixed(digits) + ' %';

// Times, in Unix seconds.
const now = () => Date.now() / 1000;
const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
const dateOf = (/** @type {number} */ t) => new Date(t * 1000);
const clock = (t) => two(dateOf(t).getHours()) + ':' + two(dateOf(t).getMinutes());
const seconds = (t) => clock(t) + ':' + two(dateOf(t).getSeconds());
const day = (t) => dateOf(t).toLocaleDateString('en-GB', { weekday: 'short', day: 'numeric', month: 'short' });
const stamp = (t) => {
  const d = dateOf(t);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(t)}`;
};

/** How long, in words. */
function span(/** @type {number} */ time) {
  if (time < 9.95) return `${+Math.max(0, time).toFixed(1)} s`;
  const t = Math.round(time);
  if (t < 60) return `${t} s`;
  if (t < 3600) return `${Math.floor(t / 60)} min` + (t < 600 && t % 60 ? ` ${t % 60} s` : '');
  if (t < 172800) return `${Math.floor(t / 3600)} h` + (Math.floor(t / 60) % 60 ? ` ${Math.floor(t / 60) % 60} min` : '');
  return `${Math.floor(t / 86400)} days`;
}

/** How long ago. A clock that is ahead by a little is one that was not set. */
function ago(/** @type {number} */ time) {
  if (time < -60) return 'in the future';
  if (time < 5) return 'now';
  return span(time < 60 || time >= 3600 ? Math.floor(time) : time - (time % 60)) + ' ago';
}

// Ticks.
function ticks(a, b, count) {
  if (!(b > a)) return [a];
  const raw = (b - a) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw)), m = raw / power;
  const step = power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10), out = [];
  for (let v = Math.ceil(a / step - 1e-9) * step; v <= b + step * 1e-9 && out.length < 40; v += step)
    out.push(Math.abs(v) < step * 1e-6 ? 0 : +v.toPrecision(12));
  return out;
}

/** Whole numbers only, for steps. */
const stepTicks = (a, b, count) => ticks(a, b, Math.min(count, Math.max(1, b - a))).filter((v) => Number.isInteger(v));

function logTicks(a, b) {
  const out = [];
  for (let e = Math.floor(Math.log10(a)); e <= Math.ceil(Math.log10(b)); e++)
    for (const m of b / a < 30 ? [1, 2, 5] : [1]) {
      const v = m * 10 ** e;
      if (v >= a * 0.999 && v <= b * 1.001) out.push(v);
    }
  return out.length > 5 ? out.filter((_, i) => i % Math.ceil(out.length / 5) === 0) : out;
}

const TIME_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];
function timeTicks(a, b, count) {
  const step = TIME_STEPS.find((x) => (b - a) / x <= count) || 2592e3;
  const zone = step < 60 ? 0 : dateOf(a).getTimezoneOffset() * 60, out = [];
  for (let t = Math.ceil((a - zone) / step) * step + zone; t <= b; t += step) out.push(t);
  return out;
}
/** A tick of a time axis that spans so many seconds. */
function timeLabel(t, spanned) {
  if (spanned > 2 * 86400 || (clock(t) === '00:00' && spanned > 3600)) return day(t).replace(',', '');
  if (spanned < 10) return seconds(t).slice(3) + (t % 1 ? '.' + Math.round((t % 1) * 10) : '');
  return spanned < 600 ? seconds(t) : clock(t);
}

// Colours.
/** A variable's colour as the browser resolves it. */
function css(/** @type {string} */ name) {
  const probe = $('#probe') || document.body.appendChild(h('i', { id: 'probe', class: 'vh', 'aria-hidden': 'true' }));
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}
const rgb = (/** @type {string} */ colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);
const mix = (a, b, t) => `rgb(${a.map((x, i) => Math.round(x + (b[i] - x) * t))})`;
