// What happened to the run: a lane per attempt, by step or by wall time.

/** Attempts that have a lane each; beyond, the middle shares one. */
const LANES = 12;
const lanes = { x: 'step', mode: 'each', open: false, chosen: /** @type {number | null} */ (null) };

const ENDS = { killed: 'killed', stopped: 'stopped by a signal', closed: 'closed', running: 'running', unknown: 'not known' };
function endWords(a) {
  if (!a.placed) return a.end === 'unknown' ? 'nothing of it is left' : `${ENDS[a.end]}; its steps are not known`;
  const at = int(a.last);
  if (a.end === 'killed') return a.lost ? `killed at ${at}; ${int(a.lost)} repeated` : `killed after ${at}`;
  if (a.end === 'stopped') return `stopped by a signal at ${at}`;
  if (a.end === 'closed') return `closed at ${at}`;
  if (a.end === 'running') return `running, at ${at}`;
  return a.saves === 0 ? 'nothing of it is left' : `ended after ${at}, not known how`;
}
const ranFor = (a) => (a.start != null && a.stop != null ? span(a.stop - a.start) : '');
const tally = (attempts) =>
  Object.entries({ killed: 'killed', stopped: 'stopped', closed: 'closed', running: 'running', unknown: 'not known how' })
    .map(([end, word]) => [attempts.filter((a) => a.end === end).length, word])
    .filter(([count]) => count)
    .map(([count, word]) => `${count} ${word}`)
    .join(', ');

/** Lanes as [first, last] of the attempts that share one. */
function laneList() {
  const n = R.A.length;
  if (lanes.mode === 'one') return [[0, n - 1]];
  if (n <= LANES || lanes.open) return R.A.map((_, i) => [i, i]);
  return [[0, 0], [1, 1], [2, n - 4], [n - 3, n - 3], [n - 2, n - 2], [n - 1, n - 1]];
}

function timeline() {
  const root = $('#timeline');
  if (!root || !R.A.length) return;
  const many = R.A.length > LANES, index = new Map(R.A.map((a, i) => [a.n, i]));
  const timed = R.A.every((a) => a.start != null && a.stop != null) && !R.data.clock.back;
  const svg = s('svg', { tabindex: 0, role: 'slider', 'aria-label': 'kept checkpoints', 'aria-valuemin': 0, 'aria-valuemax': Math.max(0, R.C.length - 1) });
  const read = h('p', { class: 'read', id: 'chosen' }), box = h('figure', { class: 'lanes' }, svg);
  const saves = varint(R.data.saves.steps), bestAt = new Set(R.M.filter((m) => m.best).map((m) => m.best.s));
  let geometry = null, over = null;

  function draw() {
    const w = Math.floor(box.clientWidth);
    if (!w) return;
    const list = laneList(), wide = w >= 760, one = lanes.mode === 'one';
    const left = wide && !one ? 168 : 6, right = wide && !one ? 222 : 16, lane = one ? 64 : wide ? 34 : 60, top = one ? 26 : 18;
    const W = w - left - right, H = top + list.length * lane + 26;
    const laneOf = new Map();
    list.forEach(([a, b], k) => {
      for (let i = a; i <= b; i++) laneOf.set(i, k);
    });
    const t0 = timed ? Math.min(...R.A.map((a) => a.start)) : 0, t1 = timed ? Math.max(...R.A.map((a) => a.stop)) : 1;
    const xTime = (t) => left + ((t - t0) / (t1 - t0 || 1)) * W;
    const x = (step, i) => (lanes.x === 'step' ? left + (step / R.S1) * W : xTime(timeOf(step, i)));
    const yOf = (i) => (one ? top + 30 : top + laneOf.get(i) * lane + (wide ? 14 : 38));
    geometry = { x, yOf, top, H, lane, one, wide };
    svg.setAttribute('width', w);
    svg.setAttribute('height', H);
    const g = s('g');
    axis(g, { left, W, w, top, H, t0, t1, xTime });
    const layout = { list, laneOf, x, xTime, yOf, wide, one, many, right, w, lane };
    R.A.forEach((a, i) => attemptLane(g, a, i, layout));
    const ticks = s('g');
    for (const step of saves) {
      const i = segOf(step), at = x(step, i), y = yOf(i);
      ticks.append(line(at, y + 2.5, at, y + 5.5, 'var(--hair)'));
    }
    g.append(ticks);
    R.C.forEach((c) => checkpointBar(g, c));
    svg.replaceChildren(g, (over = s('g')));
    cursorLine();
    tell();
  }

  const timeOf = (step, i) => {
    const a = R.A[i];
    return step >= a.last ? a.stop : step <= a.first ? a.start : timeIn(i, step);
  };

  function axis(g, { left, W, w, top, H, t0, t1, xTime }) {
    const byStep = lanes.x === 'step';
    for (const t of byStep ? stepTicks(0, R.S1, W / 90) : timeTicks(t0, t1, W / 80)) {
      const at = byStep ? left + (t / R.S1) * W : xTime(t);
      g.append(line(at, top - 6, at, H - 24, 'var(--grid)'),
        text(at, H - 8, byStep ? int(t) : timeLabel(t, t1 - t0), { 'text-anchor': at > w - 24 ? 'end' : at < 18 ? 'start' : 'middle' }));
    }
  }

  function attemptLane(g, a, i, { list, laneOf, x, xTime, yOf, wide, one, many, right, w, lane }) {
    const k = laneOf.get(i), [la, lb] = list[k], group = !one && lb > la, y = yOf(i), x0 = x(a.first, i), x1 = Math.max(x0, x(a.last, i));
    const bold = { style: 'font-weight:600;fill:var(--text)' };
    if (!one && (!group || i === la)) {
      const name = group ? `${R.A[la].n}–${R.A[lb].n}` : String(a.n);
      const who = group ? `${lb - la + 1} attempts` : [a.host, ranFor(a)].filter(Boolean).join(' · ');
      const end = group ? tally(R.A.slice(la, lb + 1)) : endWords(a);
      if (wide) {
        const indent = group ? 48 : many ? 24 : 16;
        g.append(text(0, y + 4, name, { class: 's' }), fitted(indent, y + 4, who, 168 - indent - 12), text(w - right + 22, y + 4, end));
      } else {
        g.append(text(0, y - 24, [s('tspan', bold, name + ' '), [who, end].filter(Boolean).join(' — ')]));
      }
    }
    g.append(line(x0, y, x1, y, 'var(--hair)', { 'stroke-width': 1.5 }));
    const next = R.A[i + 1];
    if (a.lost && next) {
      const from = x(next.first, i);
      g.append(s('rect', { x: from, y: y - 3, width: Math.max(2, x1 - from), height: 6, fill: 'var(--bad)', opacity: 0.55, class: 'lost' }));
    }
    if (next) link(g, a, next, i, { x, xTime, y, x1, wide, one, lane, apart: laneOf.get(i + 1) !== k });
    const tight = one || group;
    g.append(endSign(a.end, x1 + (tight || a.end === 'running' ? (a.end === 'running' ? 2 : 0) : 6), y, many && tight ? 2.6 : 4));
    if (one && (!many || i % 5 === 4 || !i)) g.append(text((x0 + x1) / 2, y - 14 + (lanes.x === 'time' ? 38 : 0), String(a.n), { 'text-anchor': 'middle' }));
  }

  /** From the end of an attempt to where the next goes on. */
  function link(g, a, next, i, { x, xTime, y, x1, wide, one, lane, apart }) {
    const dashed = { fill: 'none', stroke: 'var(--hair)', 'stroke-dasharray': '2 2' };
    if (lanes.x === 'step') {
      const at = x(next.first, i);
      if (!one && wide && apart) g.append(s('path', { d: `M${at} ${y + 7}V${y + lane - 7}`, ...dashed }));
      return;
    }
    const to = xTime(next.start);
    if (one && to - x1 > 4) g.append(s('rect', { x: x1, y: y - 9, width: to - x1, height: 18, fill: 'url(#gap)', class: 'gap' }));
    if (to - x1 > 46 && (wide || one))
      g.append(text(one ? (x1 + to) / 2 : x1 + 14, one ? y - 13 : y + lane / 2 - 4, `nothing ran for ${span(next.start - a.stop)}`, { 'text-anchor': one ? 'middle' : 'start' }));
    if (!one && wide && apart) g.append(s('path', { d: `M${x1} ${y + 6}V${y + lane / 2}H${to}V${y + lane - 7}`, ...dashed }));
  }

  function checkpointBar(g, c) {
    const i = index.get(c.attempt);
    if (i === undefined) return;
    const at = geometry.x(c.step, i), y = geometry.yOf(i);
    g.append(line(at, y - 7, at, y + 7, c.damaged || c.nan ? 'var(--bad)' : 'var(--ink)', { 'stroke-width': 2, class: 'kept' }));
    if (c.nan) g.append(s('circle', { cx: at, cy: y - 10, r: 1.6, fill: 'var(--bad)' }));
    if (c.damaged) g.append(cross(at, y - 12, 3.5));
    if (bestAt.has(c.step)) g.append(ring(at, y - 12, 3.5));
    if (c.pinned) g.append(s('path', { d: `M${at - 1} ${y - 6}v-11h1l7.5 3.5l-6.5 3.5v4z`, fill: 'var(--ink)' }));
    if (lanes.chosen === c.i) g.append(s('rect', { x: at - 4.5, y: y - 10.5, width: 9, height: 21, rx: 3, fill: 'none', stroke: 'var(--text)', 'stroke-width': 1.5 }));
  }

  function cursorLine() {
    if (!over) return;
    const step = cursorStep();
    over.replaceChildren();
    if (step == null) return;
    const at = Math.round(geometry.x(step, segOf(step))) + 0.5;
    if (at === at) over.append(line(at, geometry.top - 6, at, geometry.H - 24, 'var(--text)', { opacity: 0.5 }));
  }

  function tell() {
    const c = lanes.chosen == null ? null : R.C[lanes.chosen];
    svg.setAttribute('aria-valuenow', lanes.chosen ?? Math.max(0, R.C.length - 1));
    svg.setAttribute('aria-valuetext', c ? `step ${c.step}, attempt ${c.attempt}, ${stateWord(c)}, ${c.why.join(', ')}` : 'none chosen');
    if (!c) {
      read.replaceChildren('Each bar is a kept checkpoint, each tick below the line a save since deleted.', h('span', { class: 'hint' }, ' Point at a bar, or use the arrow keys.'));
      return;
    }
    const saved = c.t ? ` · saved ${stamp(c.t)}, ${ago(now() - c.t)}` : '';
    read.replaceChildren(h('b', {}, `step ${int(c.step)}`), `${saved} · ${size(c.size)} · kept: ${c.why.join(', ') || 'goes with the next save'} · `, stateOf(c), ' · ', linkTo(c, 'in the table'));
  }

  const choose = (i) => {
    lanes.chosen = i;
    setCursor(view.cursor, R.C[i].step);
    draw();
  };
  svg.addEventListener('pointermove', (event) => {
    if (!geometry) return;
    const frame = svg.getBoundingClientRect(), px = event.clientX - frame.left, py = event.clientY - frame.top;
    let best = -1, distance = 14;
    R.C.forEach((c, k) => {
      const i = index.get(c.attempt);
      if (i === undefined) return;
      const dx = Math.abs(geometry.x(c.step, i) - px), dy = geometry.one ? 0 : Math.abs(geometry.yOf(i) - py);
      if (dy < geometry.lane / 2 + 2 && dx < distance) [distance, best] = [dx, k];
    });
    if (best >= 0 && best !== lanes.chosen) {
      lanes.chosen = best;
      draw();
    }
  });
  svg.addEventListener('click', () => lanes.chosen != null && choose(lanes.chosen));
  svg.addEventListener('keydown', (event) => {
    const last = R.C.length - 1, i = lanes.chosen ?? last + 1;
    const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: last }[event.key];
    if (to != null && last >= 0) choose(Math.max(0, Math.min(last, to)));
    else if (event.key === 'Escape') {
      lanes.chosen = null;
      setCursor(null, null);
      draw();
    } else return;
    event.preventDefault();
  });
  const unfold = h('button', { type: 'button', 'aria-pressed': String(lanes.open), onclick: () => {
    lanes.open = !lanes.open;
    unfold.setAttribute('aria-pressed', String(lanes.open));
    unfold.textContent = lanes.open ? 'Fold the middle' : `Unfold all ${R.A.length}`;
    draw();
  } }, `Unfold all ${R.A.length}`);
  if (!timed) lanes.x = 'step';
  const bar = [
    timed && seg('x axis', [['step', 'step'], ['time', 'wall time']], lanes.x, (v) => ((lanes.x = v), draw())),
    R.A.length > 1 && seg('lanes', [['each', 'one per attempt'], ['one', 'one line']], lanes.mode, (v) => ((lanes.mode = v), draw())),
    many && unfold,
  ].filter(Boolean);
  const attempts = $('#attempts');
  root.insertBefore(h('div', {}, bar.length ? h('div', { class: 'bar' }, bar) : '', box, R.C.length ? read : '', timelineLegend(bestAt)), attempts);
  attempts.querySelector('.tw')?.replaceWith(attemptsTable());
  onSize.push(draw);
  onCursor.push(cursorLine);
}

/** Text that loses its front when there is no room: the end of a name tells it apart. */
function fitted(x, y, words, room) {
  const shown = fit(words, room, false);
  return shown === words ? text(x, y, words) : text(x, y, [s('title', {}, words), shown]);
}

function timelineLegend(bestAt) {
  const has = (test) => R.C.some(test), ends = new Set(R.A.map((a) => a.end));
  const tick = (x) => line(x, 6, x, 9, 'var(--hair)');
  return h('div', { class: 'legend' }, [
    has(() => true) && entry(line(7, 1, 7, 13, 'var(--ink)', { 'stroke-width': 2 }), 'kept'),
    R.data.saves.steps && entry([tick(3), tick(7), tick(11)], 'saved, deleted since'),
    has((c) => c.pinned) && entry(s('path', { d: 'M3 14v-12h1l8 3.7l-7 3.7v4.6z', fill: 'var(--ink)' }), 'pinned'),
    has((c) => bestAt.has(c.step)) && entry(ring(7, 7, 3.5), 'best'),
    has((c) => c.nan) && entry([line(7, 5, 7, 14, 'var(--bad)', { 'stroke-width': 2 }), s('circle', { cx: 7, cy: 2, r: 1.6, fill: 'var(--bad)' })], 'has NaN'),
    has((c) => c.damaged) && entry([line(7, 9, 7, 14, 'var(--bad)', { 'stroke-width': 2 }), cross(7, 4, 3.5)], 'damaged'),
    ends.has('killed') && entry(cross(7, 7, 3.5), 'killed'),
    ends.has('stopped') && entry(square(7, 7, 3.5), 'stopped by a signal'),
    ends.has('closed') && entry(square(7, 7, 3.5), 'closed'),
    ends.has('unknown') && entry(query(7, 7), 'not known how it ended'),
    R.A.some((a) => a.lost) && entry(s('rect', { x: 1, y: 4, width: 13, height: 6, fill: 'var(--bad)', opacity: 0.55 }), 'trained, then lost'),
  ].filter(Boolean));
}

function attemptsTable() {
  const kept = new Map();
  for (const c of R.C) kept.set(c.attempt, (kept.get(c.attempt) ?? 0) + 1);
  const date = (t) => ({ t: t == null ? '–' : h('span', { class: 'nowrap' }, stamp(t)), v: t });
  const rows = R.A.map((a) => ({ c: [
    { t: a.n, v: a.n },
    a.host,
    date(a.start),
    date(a.end === 'running' ? null : a.stop),
    { t: ranFor(a) || '–', v: a.start != null && a.stop != null ? a.stop - a.start : null },
    { t: a.resumed_from == null ? '–' : int(a.resumed_from), v: a.resumed_from },
    { t: a.placed ? int(a.last) : '–', v: a.placed ? a.last : null },
    { t: a.saves == null ? '–' : int(a.saves), v: a.saves },
    { t: kept.get(a.n) ?? 0, v: kept.get(a.n) ?? 0 },
    { t: ENDS[a.end], v: ENDS[a.end], cls: a.end === 'killed' ? 'bad' : '' },
    { t: a.lost == null ? '–' : int(a.lost), v: a.lost },
  ] }));
  const heads = [['attempt', 1], ['host'], ['started'], ['ended'], ['ran', 1], ['resumed from', 1], ['last step', 1], ['saves', 1], ['kept', 1], ['how it ended'], ['repeated', 1]];
  return table(heads.map(([t, n]) => ({ t, num: !!n })), rows, { sort: 0, dir: 1, focus: 'attempts' });
}
