// Tensors as a tree by name, with what each module holds rolled up.

const tree = {
  zoom: '', open: /** @type {Set<string> | null} */ (null), query: '', sort: 'bytes', dir: -1, flat: false, limit: 2000,
};

/** A name in parts; a number belongs to the part before it: layers.4. */
function partsOf(name) {
  const parts = [];
  for (const [, part, mark] of name.matchAll(/([^./]*)([./]|$)/g)) {
    if (part === '' && mark === '') continue;
    if (/^\d+$/.test(part) && parts.length && !/\d$/.test(parts.at(-1).text)) {
      parts.at(-1).text += parts.at(-1).mark + part;
      parts.at(-1).mark = mark;
    } else parts.push({ text: part, mark });
  }
  return parts;
}

/** The tree of all tensors; a module with one child is joined with it. */
function treeOf(tensors) {
  const root = { name: '', path: '', mark: '', kids: new Map(), up: null, t: null };
  for (const t of tensors) {
    let node = root;
    for (const { text, mark } of partsOf(t.name)) {
      if (!node.kids.has(text)) node.kids.set(text, { name: text, path: node.path + node.mark + text, mark, kids: new Map(), up: node, t: null });
      node = node.kids.get(text);
    }
    // A tensor whose name is also a module's is a child of its own.
    if (node.kids.size) node.kids.set('', (node = { name: '(itself)', path: t.name + '.', mark: '', kids: new Map(), up: node, t }));
    node.t = t;
  }
  join(root);
  roll(root);
  return root;
}

function join(node) {
  if (node.t && node.kids.size) {
    node.kids.set('', { name: '(itself)', path: node.path + '.', mark: '', kids: new Map(), up: node, t: node.t });
    node.t = null;
  }
  for (const kid of node.kids.values()) join(kid);
  if (!node.up || !node.up.up || node.kids.size !== 1 || node.t) return;
  const only = [...node.kids.values()][0];
  node.name += node.mark + only.name;
  Object.assign(node, { path: only.path, mark: only.mark, kids: only.kids, t: only.t });
  for (const kid of node.kids.values()) kid.up = node;
}

const SUMS = ['n', 'bytes', 'count', 'nan', 'squares', 'zeroCount', 'known'];
function roll(node) {
  if (node.t) {
    const t = node.t, has = t.norm != null;
    Object.assign(node, {
      n: t.tied == null ? t.n : 0, bytes: t.bytes, count: 1, nan: t.nan, std: t.std, norm: t.norm, zeros: t.zeros,
      squares: has ? t.norm ** 2 : 0, zeroCount: has ? t.zeros * t.n : 0, known: has ? t.n : 0,
    });
    return;
  }
  for (const key of SUMS) node[key] = 0;
  for (const kid of node.kids.values()) {
    roll(kid);
    for (const key of SUMS) node[key] += kid[key];
  }
  node.norm = node.known ? Math.sqrt(node.squares) : null;
  node.zeros = node.known ? node.zeroCount / node.known : null;
  node.std = null;
}

/** Words that must all be in a name; * and ? stand for text and a character. */
function matcher(query) {
  const words = query.trim().toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  if (words.length === 1 && words[0] === 'nan') return (t) => t.nan > 0 || /nan/i.test(t.name);
  const patterns = words.map((word) => new RegExp(word.replace(/[.+^${}()|[\]\\]/g, '\\$&').replace(/\*/g, '.*').replace(/\?/g, '.')));
  return (t) => {
    const name = t.name.toLowerCase();
    return patterns.every((pattern) => pattern.test(name));
  };
}

/** A tensor's histogram, small. */
function spark(t) {
  if (!t.bars) return '';
  const n = t.bars.length;
  let d = '';
  t.bars.forEach((bar, i) => (d += (i ? 'L' : 'M') + ((i / (n - 1)) * 56).toFixed(1) + ' ' + (15 - (bar / 255) * 14).toFixed(1)));
  return s('svg', { width: 56, height: 16, 'aria-hidden': 'true' },
    s('path', { d: d + 'L56 15.5L0 15.5Z', fill: t.nan ? 'var(--bad-soft)' : 'var(--accent-soft)', stroke: t.nan ? 'var(--bad)' : 'var(--ink)', 'stroke-width': 1 }));
}

/** The section: treemap, filter and tree, which know each other. */
function tensors() {
  const section = $('#tensors');
  if (!section || !R.T.length) return;
  const root = treeOf(R.T), body = h('tbody'), counted = h('span', { class: 'muted', 'aria-live': 'polite' });
  const find = (path) => {
    const walk = (node) => {
      if (node.path === path) return node;
      for (const kid of node.kids.values()) if (path.startsWith(kid.path) || kid.kids.size) {
        const found = walk(kid);
        if (found) return found;
      }
      return null;
    };
    return walk(root);
  };
  let zoomed = find(tree.zoom) ?? root;
  tree.open ??= new Set([...root.kids.values()].filter((kid) => root.kids.size === 1 || kid.name === 'model').map((kid) => kid.path));
  const map = treemap(root, () => zoomed, go, reveal);
  const columns = [['name', 'name'], ['values', null], ['dtype', 'dtype'], ['shape', null], ['parameters', 'n'], ['size', 'bytes'], ['norm', 'norm'], ['std', 'std'], ['zeros', 'zeros'], ['NaN', 'nan']];
  const heads = columns.map(([title, key], i) => h('th', { scope: 'col', class: i > 3 ? 'num' : null }, key
    ? h('button', { type: 'button', onclick: () => {
        tree.dir = tree.sort === key ? -tree.dir : key === 'name' || key === 'dtype' ? 1 : -1;
        tree.sort = key;
        draw();
      } }, title) : title));

  function listed(hits) {
    const out = [], key = (node) => (tree.sort === 'dtype' ? node.t?.dtype ?? null : node[tree.sort]);
    if (tree.flat) {
      const flat = R.T.filter((t) => (!hits || hits.has(t)) && (zoomed === root || t.name.startsWith(zoomed.path)));
      const nodes = flat.map((t) => ({ t, name: t.name, path: t.name, kids: new Map(), count: 1, n: t.n, bytes: t.bytes, norm: t.norm, std: t.std, zeros: t.zeros, nan: t.nan }));
      return nodes.sort(compareBy(key, tree.dir)).map((node) => [node, 0]);
    }
    const has = new Map(), holds = (node) => {
      if (!has.has(node)) has.set(node, node.t ? hits.has(node.t) : [...node.kids.values()].some(holds));
      return has.get(node);
    };
    const walk = (node, depth) => {
      for (const kid of [...node.kids.values()].filter((k) => !hits || holds(k)).sort(compareBy(key, tree.dir))) {
        out.push([kid, depth]);
        if (out.length > tree.limit) return;
        if (kid.kids.size && ((hits && hits.size <= 500) || tree.open.has(kid.path))) walk(kid, depth + 1);
      }
    };
    walk(zoomed, 0);
    if (zoomed.t) out.push([zoomed, 0]);
    return out;
  }

  function draw() {
    const test = matcher(tree.query), hits = test ? new Set(R.T.filter(test)) : null, rows = listed(hits);
    counted.textContent = hits ? `${int(hits.size)} of ${plural(R.T.length, 'tensor')} match` : plural(R.T.length, 'tensor');
    const most = Math.max(1, ...rows.slice(0, tree.limit).map(([node]) => node.bytes));
    const shown = rows.slice(0, tree.limit).map(([node, depth], i) => treeRow(node, depth, i, most, hits));
    if (rows.length > tree.limit) shown.push(h('tr', {}, h('td', { colspan: 10, class: 'muted' }, `The first ${int(tree.limit)} rows; filter to see others. `,
      h('button', { type: 'button', class: 'link', onclick: () => { tree.limit *= 5; draw(); } }, 'Show more'))));
    if (!rows.length) shown.push(h('tr', {}, h('td', { colspan: 10, class: 'muted' }, `No tensor matches “${tree.query}”. `,
      h('button', { type: 'button', class: 'link', onclick: () => { filter.value = tree.query = ''; draw(); } }, 'Clear the filter'))));
    body.replaceChildren(...shown);
    heads.forEach((head, i) => columns[i][1] === tree.sort ? head.setAttribute('aria-sort', tree.dir > 0 ? 'ascending' : 'descending') : head.removeAttribute('aria-sort'));
  }

  function treeRow(node, depth, i, most, hits) {
    const folds = node.kids.size > 0, open = folds && ((hits && hits.size <= 500) || tree.open.has(node.path)), t = node.t;
    const fold = h('span', { class: 'fold' }, folds ? (open ? '▾' : '▸') : '');
    return h('tr', {
      role: 'row', 'aria-level': depth + 1, 'aria-expanded': folds ? String(!!open) : null, tabindex: i ? -1 : 0, 'data-path': node.path, class: folds ? 'folds' : null,
      onclick: () => folds && !getSelection()?.toString() && toggle(node),
    },
      h('td', { style: `padding-left:${depth * 16}px`, class: 'tname' }, fold, h(folds ? 'b' : 'span', {}, node.name),
        folds ? h('span', { class: 'muted' }, ` ${int(node.count)}`) : '', node.nan && folds ? h('span', { class: 'bad' }, ' NaN') : '',
        t?.tied != null ? h('span', { class: 'muted' }, ` = ${t.tied}`) : ''),
      h('td', {}, t ? spark(t) : ''), h('td', {}, t?.dtype ?? ''), h('td', { class: 'nowrap' }, t?.shape ?? ''), h('td', { class: 'num' }, int(node.n)),
      h('td', { class: 'num' }, h('span', { class: 'hb', 'aria-hidden': 'true' }, h('span', { class: 'hm', style: `width:${Math.max(1, Math.round((node.bytes / most) * 60))}px` })), h('span', { class: 'nb' }, size(node.bytes))),
      h('td', { class: 'num' }, node.norm == null ? '–' : num(node.norm)), h('td', { class: 'num' }, node.std == null ? '' : num(node.std)),
      h('td', { class: 'num' }, node.zeros == null ? '–' : percent(node.zeros)),
      h('td', { class: 'num' }, node.nan ? h('b', { class: 'bad' }, int(node.nan)) : node.known || t?.norm != null ? '0' : '–'));
  }

  const focusRow = (path) => [...body.children].find((row) => row.dataset.path === path)?.focus();
  function toggle(node) {
    tree.open.has(node.path) ? tree.open.delete(node.path) : tree.open.add(node.path);
    draw();
    focusRow(node.path);
  }
  function go(node) {
    zoomed = node;
    tree.zoom = node.path;
    for (let up = node; up; up = up.up) tree.open.add(up.path);
    map.draw();
    draw();
    map.focus();
  }
  function reveal(node) {
    for (let up = node.up; up; up = up.up) tree.open.add(up.path);
    tree.flat = false;
    draw();
    const row = [...body.children].find((other) => other.dataset.path === node.path);
    row?.scrollIntoView({ block: 'center' });
    row?.focus();
  }
  body.addEventListener('keydown', (event) => treeKeys(event, body, (path) => toggle(find(path))));

  const filter = h('input', { type: 'search', id: 'tfilter', placeholder: 'filter: layers.4 *gate*', 'aria-label': 'filter tensors by name', value: tree.query,
    oninput: () => {
      tree.query = filter.value;
      draw();
    } });
  section.append(map.crumbs, map.element, map.tip,
    h('div', { class: 'bar' }, filter, counted, h('span', { class: 'grow' }), seg('show', [['tree', 'tree'], ['flat', 'flat list']], tree.flat ? 'flat' : 'tree', (v) => {
      tree.flat = v === 'flat';
      draw();
    })),
    h('div', { class: 'tw', tabindex: 0, role: 'region', 'aria-label': 'tensors' },
      h('table', { class: 'tree', role: 'treegrid', 'aria-label': `tensors of ${R.data.tensors.of}` }, h('thead', {}, h('tr', {}, heads)), body)));
  draw();
  onSize.push(map.draw);
}

/** Arrow keys in the tree. */
function treeKeys(event, body, toggle) {
  const row = event.target.closest('tr');
  if (!row || event.target !== row) return;
  const to = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling, Home: body.firstElementChild, End: body.lastElementChild }[event.key];
  const expanded = row.getAttribute('aria-expanded'), move = (target) => {
    row.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  };
  if (to) move(to);
  else if (expanded != null && (event.key === 'Enter' || event.key === ' ' || (event.key === 'ArrowRight' && expanded === 'false') || (event.key === 'ArrowLeft' && expanded === 'true')))
    toggle(row.dataset.path);
  else if (event.key === 'ArrowLeft') {
    const level = +row.getAttribute('aria-level');
    let up = row.previousElementSibling;
    while (up && +up.getAttribute('aria-level') >= level) up = up.previousElementSibling;
    if (up) move(up);
  } else return;
  event.preventDefault();
}

addEventListener('keydown', (event) => {
  const field = $('#tfilter');
  if (event.key !== '/' || !field || /INPUT|SELECT|TEXTAREA/.test(document.activeElement?.tagName ?? '')) return;
  event.preventDefault();
  field.focus();
  field.scrollIntoView({ block: 'center' });
});
