// Several runs: their curves over each other, and one table.

const DASHES = ['', '7 3', '2 3', '9 3 2 3'], STYLES = ['solid', 'dashed', 'dotted', 'dashed'], AT_ONCE = 8;
const runs = { metric: '', x: 'step', smooth: 0, hot: /** @type {number | null} */ (null), cursor: /** @type {number | null} */ (null), query: '', sort: 2, dir: -1, picked: /** @type {Set<string> | null} */ (null) };
const DOTS = { running: 'run', finished: 'done', stopped: 'stop', closed: 'stop', died: 'bad', unknown: '', empty: '' };

function drawRuns(/** @type {RunsPage} */ data) {
  const all = data.runs.map((run, i) => ({ ...run, i, s: Object.fromEntries(Object.entries(run.series).map(([name, m]) => [name, { dir: m.dir, s: varint(m.steps), y: f32(m.v), t: varint(m.t).map((ms) => ms / 3.6e6) }])) }));
  R = { data, all, T: [], C: [], M: [], A: [], segs: [], run: {} };
  if (!data.metrics.includes(runs.metric)) runs.metric = data.metrics[0] ?? '';
  runs.picked ??= new Set(all.filter((run) => Object.keys(run.s).length).slice(0, 5).map((run) => run.name));
  const picked = () => all.filter((run) => runs.picked.has(run.name)), order = (run) => [...runs.picked].indexOf(run.name);
  const colour = (run) => (order(run) < 0 ? null : `var(--r${(order(run) % AT_ONCE) + 1})`);
  const box = h('figure', { class: 'chart' }), svg = s('svg', { height: 340, tabindex: 0, role: 'slider', 'aria-label': 'all chosen runs, crosshair', 'aria-valuemin': 0 }), values = h('div', { class: 'vals', id: 'vals' });
  box.append(svg);
  let geometry = null;
  const half = () => (runs.smooth ? Math.max(1, Math.round((geometry?.steps ?? 1000) / 600 * 1.7 ** (runs.smooth - 1))) : 0);
  const xs = (m) => (runs.x === 'step' ? m.s : m.t);

  function smooth(m) {
    const h2 = half(), out = [];
    let mean = m.y[0];
    m.s.forEach((step, i) => {
      mean = h2 && i ? mean + (m.y[i] - mean) * (1 - 2 ** (-(step - m.s[i - 1]) / h2)) : m.y[i];
      out.push(mean);
    });
    return out;
  }

  function draw() {
    const w = Math.floor(box.clientWidth), H = 340, labels = w > 700 ? 110 : 8, left = 46, bottom = 24, W = w - left - labels;
    if (!w) return;
    const drawn = picked().filter((run) => run.s[runs.metric]?.s.length);
    svg.setAttribute('width', w);
    let lo = Infinity, hi = -Infinity, last = 1e-9, steps = 1;
    drawn.forEach((run) => (steps = Math.max(steps, run.s[runs.metric].s.at(-1))));
    geometry = { left, W, last, steps };
    const curves2 = drawn.map((run) => {
      const m = run.s[runs.metric], y = smooth(m);
      for (const v of y) [lo, hi] = [Math.min(lo, v), Math.max(hi, v)];
      last = Math.max(last, xs(m).at(-1));
      return { run, m, y };
    });
    if (!(hi >= lo)) [lo, hi] = [0, 1];
    const room = (hi - lo) * 0.06 || Math.abs(hi) * 0.1 || 1, px = (v) => left + (v / last) * W, py = (v) => 8 + ((hi + room - v) / (hi - lo + 2 * room)) * (H - bottom - 8), g = s('g');
    geometry.last = last;
    for (const t of ticks(lo - room, hi + room, 6)) g.append(line(left, Math.round(py(t)) + 0.5, left + W, Math.round(py(t)) + 0.5, 'var(--grid)'), text(left - 7, py(t) + 4, short(t), { 'text-anchor': 'end' }));
    for (const t of runs.x === 'step' ? stepTicks(0, last, W / 100) : ticks(0, last, W / 100))
      g.append(text(Math.min(px(t), w - 24), H - 4, runs.x === 'step' ? int(t) : `${t} h`, { 'text-anchor': t ? 'middle' : 'start' }));
    g.append(line(left, H - bottom + 0.5, left + W, H - bottom + 0.5, 'var(--hair)'));
    const names = [];
    for (const { run, m, y } of curves2) {
      const hot = runs.hot == null || runs.hot === run.i;
      let d = '';
      y.forEach((v, i) => (d += (i ? 'L' : 'M') + px(xs(m)[i]).toFixed(1) + ' ' + py(v).toFixed(1)));
      g.append(s('path', { d, fill: 'none', stroke: colour(run), 'stroke-width': runs.hot === run.i ? 2.6 : 1.6, opacity: hot ? 1 : 0.22, 'stroke-dasharray': DASHES[order(run) % 4] || null, 'stroke-linejoin': 'round', class: 'curve' }));
      if (m.dir && y.length) {
        let best = 0;
        m.y.forEach((v, i) => { if (m.dir === 'max' ? v > m.y[best] : v < m.y[best]) best = i; });
        g.append(s('circle', { cx: px(xs(m)[best]), cy: py(y[best]), r: 4, fill: 'var(--bg)', stroke: colour(run), 'stroke-width': 2, opacity: hot ? 1 : 0.25 }));
      }
      names.push({ run, at: 0, x: px(xs(m).at(-1)), y: py(y.at(-1)), hot });
    }
    if (labels > 20) {
      names.sort((a, b) => a.y - b.y).forEach((name, i) => (name.at = Math.max(name.y, i ? names[i - 1].at + 16 : 14)));
      for (let i = names.length - 1; i >= 0; i--) names[i].at = Math.min(names[i].at, i < names.length - 1 ? names[i + 1].at - 16 : H - bottom - 4);
      for (const { run, x, y, at, hot } of names) {
        g.append(s('circle', { cx: x, cy: y, r: 2.5, fill: colour(run), opacity: hot ? 1 : 0.3 }),
          text(left + W + 10, at + 4, [s('title', {}, run.name), fit(run.name, labels - 12, true)], { style: `fill:${colour(run)};font-weight:600`, opacity: hot ? 1 : 0.4 }));
      }
    }
    if (runs.cursor != null) g.append(line(Math.round(px(runs.cursor)) + 0.5, 8, Math.round(px(runs.cursor)) + 0.5, H - bottom, 'var(--text)', { opacity: 0.5 }));
    svg.replaceChildren(g);
    read(curves2);
  }

  function read(curves2) {
    const sign2 = curves2[0]?.m.dir === 'min' ? 1 : -1, rows = curves2.map(({ run, m, y }) => {
      if (runs.cursor == null) return { run, v: y.at(-1) };
      let i = 0;
      while (i + 1 < y.length && xs(m)[i + 1] <= runs.cursor) i++;
      return { run, v: xs(m).at(-1) < runs.cursor * 0.985 ? null : y[i] };
    }).sort((a, b) => (a.v == null ? 1 : b.v == null ? -1 : (a.v - b.v) * sign2));
    const where = runs.cursor == null ? 'Newest values. Point at the chart or use the arrow keys to read others.' : runs.x === 'step' ? `at step ${int(runs.cursor)}` : `${runs.cursor.toFixed(2)} h after its start`;
    values.replaceChildren(h('span', { class: 'muted where' }, where), ...rows.map(({ run, v }) => h('span', {}, h('i', { style: `border-color:${colour(run)};border-top-style:${STYLES[order(run) % 4]}` }), run.name, ' ',
      v == null ? h('span', { class: 'muted' }, run.state === 'running' ? 'not there yet' : 'ended') : h('b', {}, num(v)))));
    svg.setAttribute('aria-valuemax', Math.round(geometry.last));
    svg.setAttribute('aria-valuenow', Math.round(runs.cursor ?? geometry.last));
    svg.setAttribute('aria-valuetext', values.textContent);
  }

  const move = (x) => {
    runs.cursor = x == null ? null : Math.max(0, Math.min(geometry.last, x));
    draw();
  };
  svg.addEventListener('pointermove', (event) => move(((event.clientX - svg.getBoundingClientRect().left - geometry.left) / geometry.W) * geometry.last));
  svg.addEventListener('pointerleave', () => move(null));
  svg.addEventListener('keydown', (event) => {
    const at = runs.cursor ?? geometry.last, d = geometry.last / 100;
    const to = { ArrowLeft: at - d, ArrowRight: at + d, PageUp: at + 10 * d, PageDown: at - 10 * d, Home: 0, End: geometry.last }[event.key];
    if (to == null && event.key !== 'Escape') return;
    event.preventDefault();
    move(to ?? null);
  });
  const root = $('#overlay'), slider = h('input', { type: 'range', min: 0, max: 8, value: runs.smooth, 'aria-label': 'smoothing' }), shown = h('output', { class: 'muted half' }, 'off');
  slider.addEventListener('input', () => {
    runs.smooth = +slider.value;
    draw();
    shown.textContent = half() ? plural(half(), 'step') : 'off';
  });
  if (root && data.metrics.length) {
    const few = data.metrics.length <= 4;
    const choice = few
      ? seg('metric', data.metrics.map((m) => [m, m]), runs.metric, (v) => ((runs.metric = v), draw(), list2()))
      : h('label', { class: 'tag' }, h('span', { class: 'muted' }, 'metric'), h('select', { 'aria-label': 'metric', onchange: (event) => ((runs.metric = event.target.value), draw(), list2()) }, data.metrics.map((m) => h('option', { value: m, selected: m === runs.metric }, m))));
    root.append(h('div', { class: 'bar' }, choice, seg('x axis', [['step', 'step'], ['time', 'hours since start']], runs.x, (v) => ((runs.x = v), (runs.cursor = null), draw())), h('label', { class: 'tag' }, h('span', { class: 'muted' }, 'smoothing'), slider, shown)), box, values,
      alt('Curves as a table', () => overlayTable(all)));
    onSize.push(draw);
  }
  const note = h('span', { class: 'warn', 'aria-live': 'polite', id: 'note' });
  const filter = h('input', { type: 'search', id: 'rfilter', placeholder: 'filter: running, nan, lr1e', 'aria-label': 'filter runs', value: runs.query, oninput: () => {
    runs.query = filter.value.trim().toLowerCase();
    list2();
  } });
  const holder = h('div');
  function list2() {
    const shownRuns = all.filter((run) => !runs.query || [run.name, run.state, run.verdict, run.word].join(' ').toLowerCase().includes(runs.query));
    holder.replaceChildren(runsTable(shownRuns, all, data, colour, (run, on) => {
      if (on && runs.picked.size >= AT_ONCE) {
        note.textContent = 'Eight at once; untick one first.';
        return false;
      }
      note.textContent = '';
      on ? runs.picked.add(run.name) : runs.picked.delete(run.name);
      draw();
      list2();
      return true;
    }, (hot) => {
      if (hot === runs.hot) return;
      runs.hot = hot;
      draw();
    }), shownRuns.length ? '' : h('p', { class: 'muted' }, `No run matches “${runs.query}”.`));
  }
  list2();
  $('#runs .tw')?.remove();
  $('#runs').append(h('div', { class: 'bar' }, filter, note), holder);
}

function overlayTable(all) {
  const rs = all.filter((run) => run.s[runs.metric]?.s.length), last = Math.max(1, ...rs.map((run) => run.s[runs.metric].s.at(-1)));
  const rows = Array.from({ length: 25 }, (_, k) => {
    const x = Math.max(1, Math.round((k * last) / 24));
    return { c: [{ t: int(x), v: x }, ...rs.map((run) => {
      const m = run.s[runs.metric], i = m.s.findLastIndex((step) => step <= x), v = i < 0 || m.s.at(-1) < x - last / 24 ? null : m.y[i];
      return { t: num(v), v };
    })] };
  });
  return table([{ t: 'step', num: true }, ...rs.map((run) => ({ t: run.name, num: true }))], rows, { sort: 0, dir: 1, focus: `${runs.metric} by run` });
}

/** A curve, small. */
function sparkline(m, colour, most) {
  if (!m || !m.s.length) return h('span', { class: 'muted' }, '–');
  const w = 92, H = 26, lo = Math.min(...m.y), hi = Math.max(...m.y), px = (x) => 2 + (x / most) * (w - 6), py = (y) => 3 + ((hi - y) / (hi - lo || 1)) * (H - 6);
  let d = '';
  m.s.forEach((x, i) => (d += (i ? 'L' : 'M') + px(x).toFixed(1) + ' ' + py(m.y[i]).toFixed(1)));
  return s('svg', { width: w, height: H, role: 'img', 'aria-label': `from ${num(m.y[0])} to ${num(m.y.at(-1))}` }, line(2, H - 1.5, w - 4, H - 1.5, 'var(--line)'),
    s('path', { d, fill: 'none', stroke: colour || 'var(--muted)', 'stroke-width': 1.2 }), s('circle', { cx: px(m.s.at(-1)), cy: py(m.y.at(-1)), r: 1.8, fill: colour || 'var(--muted)' }));
}

function runsTable(shown, all, data, colour, tick, hover) {
  const most = Math.max(1, ...all.map((run) => run.step)), keys = [...new Set(all.flatMap((run) => Object.keys(run.settings)))];
  const settings = keys.filter((key) => new Set(all.map((run) => run.settings[key] ?? '')).size > 1).slice(0, 8), curvesOf = data.metrics.slice(0, 2);
  const heads = [{ t: 'show' }, { t: 'run' }, { t: 'best', num: true }, { t: 'state' }, { t: 'resumes from' }, { t: 'progress', num: true }, ...curvesOf.map((t) => ({ t })), ...settings.map((t) => ({ t, num: true })), { t: 'attempts', num: true }, { t: 'kept', num: true }, { t: 'last seen', num: true }];
  const row = (run) => {
    const box = h('input', { type: 'checkbox', checked: runs.picked.has(run.name), style: `--c:${colour(run) || 'var(--accent)'}`, 'aria-label': `draw ${run.name}`, disabled: !Object.keys(run.s).length, onchange: (event) => {
      if (!tick(run, event.target.checked)) event.target.checked = false;
    } });
    const name = run.href ? h('a', { href: run.href, class: 'runname', style: colour(run) ? `color:${colour(run)}` : null }, run.name) : h('b', { class: 'runname', style: colour(run) ? `color:${colour(run)}` : null }, run.name);
    const tone = { ok: '', nan: 'bad', damaged: 'bad', bad: 'bad', none: 'muted' }[run.verdict];
    return { cls: `r${run.i}`, c: [
      { t: h('label', {}, box), v: runs.picked.has(run.name) ? 1 : 0 }, { t: name, v: run.name },
      { t: run.best ? h('span', { class: 'nowrap' }, h('b', {}, num(run.best[1])), h('span', { class: 'muted' }, ` ${run.best[0]} at ${int(run.best[2])}`)) : '–', v: run.best?.[1] ?? null },
      { t: h('span', { class: 'state nowrap' }, h('i', { class: `dot ${DOTS[run.state] ?? ''}` }), run.state === 'unknown' ? 'not known' : run.state), v: run.state },
      { t: h('span', { class: `nowrap ${tone}` }, run.word), v: run.word },
      { t: h('span', { class: 'nowrap' }, int(run.step), run.total ? h('span', { class: 'muted' }, ` of ${int(run.total)}`) : ''), v: run.step },
      ...curvesOf.map((m) => ({ t: sparkline(run.s[m], colour(run), most), v: run.s[m]?.y.at(-1) ?? null })),
      ...settings.map((key) => ({ t: run.settings[key] ?? '–', v: isNaN(+run.settings[key]) ? run.settings[key] ?? null : +run.settings[key], cls: run.settings[key] === all[0].settings[key] ? 'muted' : '' })),
      { t: h('span', { class: 'nowrap' }, int(run.attempts), run.killed ? h('span', { class: 'muted' }, `, ${run.killed} killed`) : ''), v: run.attempts },
      { t: h('span', { class: 'nowrap' }, int(run.kept), h('span', { class: 'muted' }, `, ${size(run.bytes)}`)), v: run.kept },
      { t: run.seen ? h('time', { 'data-t': run.seen, class: 'nowrap' }, ago(now() - run.seen)) : '–', v: run.seen || null },
    ] };
  };
  const made = table(heads, shown.map(row), { sort: runs.sort, dir: runs.dir, focus: 'runs', cls: 'rt', onsort: (key, dir) => Object.assign(runs, { sort: key, dir }) });
  made.addEventListener('pointerover', (event) => {
    const tr = event.target.closest('tbody tr'), i = tr ? +tr.className.slice(1) : null;
    hover(i != null && runs.picked.has(all[i].name) ? i : null);
  });
  made.addEventListener('pointerleave', () => hover(null));
  return made;
}
