// Two kept checkpoints side by side, by module.

const pair = { from: -1, to: -1, part: /** @type {string | null} */ (null), open: /** @type {Set<string> | null} */ (null) };

/** The part of a name that tells model and optimizer apart. */
const partOf = (name) => (name.includes('/') ? name.slice(0, name.indexOf('/')) : '');

function compare() {
  const root = $('#compare'), data = R.data.pairs;
  if (!root || !data || data.pick.length < 2) return;
  const picks = data.pick.map((i) => R.C[i]), rel = logScale(data.rel), angle = logScale(data.angle), n = data.tensors.length;
  const names = data.tensors.map((i) => R.T[i].name), parts = [...new Set(names.map(partOf))];
  if (pair.from < 0 || pair.to >= picks.length) [pair.from, pair.to] = data.first ?? [0, picks.length - 1];
  if (!parts.includes(pair.part)) pair.part = parts.includes('model') ? 'model' : parts[0];
  const out = h('div', { id: 'differ' });
  const pairIndex = (a, b) => {
    let k = 0;
    for (let i = 0; i < picks.length; i++)
      for (let j = i + 1; j < picks.length; j++, k++) if (i === a && j === b) return k;
    return 0;
  };
  const worstFirst = (a, b) => (b.v !== b.v ? 1 : 0) - (a.v !== a.v ? 1 : 0) || b.v - a.v;

  function groups(a, b) {
    const k = pairIndex(a, b), odd = new Map(data.odd.filter(([p]) => p === k).map(([, row, words]) => [row, words])), found = new Map();
    names.forEach((name, row) => {
      if (partOf(name) !== pair.part) return;
      const t = R.T[data.tensors[row]], own = pair.part ? name.slice(pair.part.length + 1) : name, module = moduleOf(own), v = rel[k * n + row];
      if (!found.has(module)) found.set(module, { module, kids: [], squares: 0, whole: 0, n: 0, angles: 0, nan: 0 });
      const g = found.get(module), norm = t.norm ?? 0, w = norm > 0 ? norm ** 2 : t.n;
      g.kids.push({ name: own.slice(module.length + 1) || own, v, angle: angle[k * n + row], n: t.n, words: odd.get(row) });
      g.n += t.n;
      if (v !== v) g.nan++;
      else {
        g.squares += v * v * w;
        g.angles += (angle[k * n + row] || 0) ** 2 * w;
        g.whole += w;
      }
    });
    const all = [...found.values()].map((g) => ({ ...g, v: g.nan ? NaN : Math.sqrt(g.squares / (g.whole || 1)), angle: Math.sqrt(g.angles / (g.whole || 1)) }));
    return all.sort(worstFirst);
  }

  const degrees = (v) => (v !== v ? 'NaN' : v === 0 ? '0°' : `${+v.toPrecision(2)}°`);
  const bar = (v, most, kid) => h('td', { class: 'wide' }, v !== v ? h('span', { class: 'nanbar', title: 'NaN on one side' }) : h('span', { class: 'hm', style: `background:var(${kid ? '--raw' : '--ink'});width:${Math.max(v ? 1 : 0, (v / most) * 100)}%` }));

  function draw() {
    const swapped = pair.from > pair.to, a = Math.min(pair.from, pair.to), b = Math.max(pair.from, pair.to);
    if (a === b) {
      out.replaceChildren(h('p', { class: 'muted' }, 'The same checkpoint on both sides: nothing differs. Choose another.'));
      return;
    }
    const from = picks[pair.from], to = picks[pair.to], list = groups(a, b), kids = list.flatMap((g) => g.kids);
    pair.open ??= new Set(list.length ? [list[0].module] : []);
    const most = Math.max(1e-9, ...list.flatMap((g) => [g.v, ...g.kids.map((kid) => kid.v)]).filter((v) => v === v && isFinite(v)));
    const differ = kids.filter((kid) => kid.v !== 0).length, where = list[0]?.nan ? `; most in ${list[0].module}, which has NaN on one side` : differ ? `; most in ${list[0].module}` : '';
    const rows = list.flatMap((g) => {
      const open = pair.open.has(g.module);
      const head = h('tr', {}, h('td', { class: 'nowrap' }, h('button', { type: 'button', class: 'link plain', 'aria-expanded': String(open), onclick: () => {
        open ? pair.open.delete(g.module) : pair.open.add(g.module);
        draw();
      } }, h('span', { class: 'fold' }, open ? '▾' : '▸'), g.module), h('span', { class: 'muted' }, ` ${g.kids.length}`)),
        bar(g.v, most, false), h('td', { class: 'num' + (g.v !== g.v ? ' bad' : '') }, num(g.v, 3)), h('td', { class: 'num' }, degrees(g.angle)), h('td', { class: 'num' }, int(g.n)));
      const inner = (kid) => h('tr', {}, h('td', { class: 'inner' }, kid.name, kid.words ? h('span', { class: 'bad' }, ` ${kid.words}`) : ''), kid.words && kid.v !== kid.v ? h('td', {}) : bar(kid.v, most, true),
        h('td', { class: 'num' + (kid.v !== kid.v ? ' bad' : '') }, kid.words && kid.v !== kid.v ? '–' : num(kid.v, 3)), h('td', { class: 'num' }, kid.words ? '–' : degrees(kid.angle)), h('td', { class: 'num' }, int(kid.n)));
      return open ? [head, ...g.kids.sort(worstFirst).map(inner)] : [head];
    });
    const head = ['module', '', 'relative L2', 'angle', 'parameters'].map((t, i) => h('th', { class: i > 1 ? 'num' : null, scope: 'col' }, t || h('span', { class: 'vh' }, 'bar')));
    out.replaceChildren(
      h('p', { class: 'summary' }, h('b', {}, `From step ${int(from.step)} to ${int(to.step)}: `), `${int(differ)} of ${plural(kids.length, 'tensor')} differ${where}.`, swapped ? ' This goes back in time.' : ''),
      h('div', { class: 'tw', tabindex: 0, role: 'region', 'aria-label': 'comparison by module' }, h('table', { class: 'cmp' }, h('thead', {}, h('tr', {}, head)), h('tbody', {}, rows))),
      recordsOf(data.records[pairIndex(a, b)], swapped));
  }

  function recordsOf(changes, swapped) {
    const say = ([place, left, right]) => h('div', {}, h('b', {}, place + ' '), swapped ? `${right ?? 'not there'} → ${left ?? 'not there'}` : `${left ?? 'not there'} → ${right ?? 'not there'}`);
    const fact = (title, list, none) => h('div', {}, h('dt', {}, title), h('dd', {}, list.length ? list.slice(0, 12).map(say) : h('b', {}, none), list.length > 12 ? h('small', {}, `and ${list.length - 12} more`) : ''));
    return h('dl', { class: 'kv three' }, fact('Configuration', changes.config, 'nothing changed'), fact('Records that changed', changes.changed, 'none'),
      h('div', {}, h('dt', {}, 'What every step changes'), h('dd', {}, h('b', {}, plural(changes.every, 'place')), h('small', {}, 'step, data order, random state, save bookkeeping'))));
  }

  const select = (side) => {
    const element = h('select', { 'aria-label': side, onchange: () => {
      pair[side] = +element.value;
      draw();
    } }, picks.map((c, i) => h('option', { value: i, selected: i === pair[side] }, `step ${int(c.step)}, attempt ${c.attempt}${data.labels[i] ? ', ' + data.labels[i] : ''}`)));
    return h('label', { class: 'tag' }, h('span', { class: 'muted' }, side), element);
  };
  const path = R.run.path, others = picks.length < R.C.length ? [`${picks.length} of the ${int(R.C.length)} can be compared here: first, pinned, best, last finite, newest, and evenly between. Any others: `, h('code', {}, `tensorkeep diff ${path}@${picks[0].step} ${path}@${picks.at(-1).step}`), '.'] : [];
  root.append(h('div', { class: 'bar' }, select('from'), select('to'), parts.length > 1 ? seg('part', parts.map((p) => [p, p || 'other']), pair.part, (v) => {
    pair.part = v;
    pair.open = null;
    draw();
  }) : ''), out, h('p', { class: 'muted tiny' }, others));
  draw();
}
