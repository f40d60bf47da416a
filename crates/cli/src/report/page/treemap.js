// Where the bytes are: squares whose area is bytes, of every tensor there is.

/** Blocks that are smaller are drawn without what is in them. */
const ROOM = { w: 30, h: 34 };
/** Elements that a browser draws at once without a wait. */
const BLOCKS = 1500;

/** Squarified (Bruls, Huizing, van Wijk 2000): items by size, as rectangles near squares. */
function squarify(items, x, y, w, h, out = []) {
  const rest = items.filter((item) => item.bytes > 0).sort((a, b) => b.bytes - a.bytes);
  let left = rest.reduce((sum, item) => sum + item.bytes, 0), at = 0;
  while (at < rest.length) {
    const side = Math.min(w, h), scale = (w * h) / left;
    if (!(side > 0)) break;
    const worst = (sum, least) => Math.max((side * side * rest[at].bytes * scale) / (sum * sum), (sum * sum) / (side * side * least));
    let end = at + 1, sum = rest[at].bytes * scale;
    while (end < rest.length) {
      const area = rest[end].bytes * scale;
      if (worst(sum + area, area) > worst(sum, rest[end - 1].bytes * scale)) break;
      sum += area;
      end++;
    }
    const thick = sum / side;
    let along = 0;
    for (; at < end; at++) {
      const long = (rest[at].bytes * scale) / thick;
      out.push(w < h ? { item: rest[at], x: x + along, y, w: long, h: thick } : { item: rest[at], x, y: y + along, w: thick, h: long });
      along += long;
      left -= rest[at].bytes;
    }
    if (w < h) [y, h] = [y + thick, h - thick];
    else [x, w] = [x + thick, w - thick];
  }
  return out;
}

const ruler = document.createElement('canvas').getContext('2d');
/** As much of the end of a name as there is room for: the end tells names apart. */
function fit(words, room, bold) {
  ruler.font = (bold ? '600 ' : '') + '12px ' + getComputedStyle(document.body).fontFamily;
  const wide = (t) => ruler.measureText(t).width;
  if (wide(words) <= room) return words;
  let from = Math.max(1, words.length - Math.ceil(room / 3));
  for (; from < words.length; from++) {
    const rest = '…' + words.slice(from).replace(/^\W+/, '');
    if (wide(rest) <= room) return rest.length > 1 ? rest : '';
  }
  return '';
}

/** @returns {{element: any, crumbs: any, tip: any, draw: () => void, focus: () => void}} */
function treemap(root, zoomed, go, reveal) {
  const element = h('div', { class: 'map', id: 'map' }), crumbs = h('nav', { 'aria-label': 'place in the tree', class: 'read', id: 'crumbs' });
  const tip = h('p', { class: 'read tiny' }, 'Area is bytes, and every byte is drawn. Choose a block to go into it.');
  const hues = new Map([...root.kids.values()].sort((a, b) => b.bytes - a.bytes).map((kid, i) => [kid, i % 4]));
  const single = root.kids.size === 1 ? [...root.kids.values()][0] : null;
  if (single) [...single.kids.values()].sort((a, b) => b.bytes - a.bytes).forEach((kid, i) => hues.set(kid, i % 4));
  const hueOf = (node) => {
    let up = node;
    while (up.up && up.up !== root && up.up !== single) up = up.up;
    return hues.get(up) ?? 3;
  };
  let drawn = 0;

  function block(r, depth) {
    const node = r.item, share = percent(node.bytes / (root.bytes || 1)), words = `${size(node.bytes)}, ${share}, ${plural(node.count, 'tensor')}`;
    const labelled = r.w > 28 && r.h > 15, nested = node.kids.size > 0 && depth < 2 && r.w > ROOM.w && r.h > ROOM.h && drawn < BLOCKS;
    const hue = hueOf(node), ground = depth ? `color-mix(in oklab,var(--t${hue}),var(--k${hue}) ${depth === 1 ? 9 : 18}%)` : `var(--t${hue})`;
    const less = depth ? 1 : 2, badRoom = node.nan && r.w > 88 ? 36 : 0;
    drawn++;
    const label = labelled
      ? [h('span', { class: depth ? null : 'strong' }, fit(node.name, r.w - (depth ? 10 : 14) - badRoom - (!depth && r.w > 130 ? 70 : 0), !depth), !depth && r.w > 130 ? h('span', {}, ' ' + size(node.bytes)) : ''),
         badRoom ? h('span', { class: 'chip' }, 'NaN') : '']
      : '';
    element.append(h(depth ? 'div' : 'button', {
      type: depth ? null : 'button', class: `block d${depth}` + (node.nan && !nested ? ' bad-edge' : ''), title: depth ? null : `${node.path}\n${words}`,
      'aria-label': depth ? null : `${node.path}, ${words}${node.kids.size ? ', zoom in' : ''}`, 'aria-hidden': depth ? 'true' : null,
      'data-w': r.w.toFixed(2), 'data-h': r.h.toFixed(2),
      style: `left:${r.x.toFixed(2)}px;top:${r.y.toFixed(2)}px;width:${Math.max(0, r.w - less).toFixed(2)}px;height:${Math.max(0, r.h - less).toFixed(2)}px;padding:${labelled ? (depth ? '0 4px' : '1px 6px') : 0};background:${ground}`,
      onclick: depth ? null : () => (node.kids.size ? go(node) : reveal(node)),
      onpointerenter: depth ? null : () => (tip.textContent = `${node.path} · ${size(node.bytes)} · ${share} of the file · ${plural(node.count, 'tensor')} · ${plural(node.n, 'value')}`),
    }, label));
    if (!nested) return;
    const pad = depth ? 2 : 3;
    for (const inner of squarify([...node.kids.values()], r.x + pad, r.y + 17, r.w - 2 * pad - less, r.h - 17 - pad - less)) if (inner.w >= 1 && inner.h >= 1 && drawn < BLOCKS) block(inner, depth + 1);
  }

  function draw() {
    const w = Math.floor(element.clientWidth), node = zoomed(), H = w < 640 ? 300 : 320;
    if (!w) return;
    element.style.height = `${H}px`;
    element.replaceChildren();
    drawn = 0;
    const kids = node.kids.size ? [...node.kids.values()] : [node];
    const blocks = squarify(kids, 0, 0, w, H);
    // Too many for a browser: the smallest share one block, so that every byte still has its area.
    if (blocks.length > BLOCKS) {
      const items = blocks.map((b) => b.item), rest = items.slice(BLOCKS - 1);
      const others = { name: `${int(rest.length)} smaller`, path: `${int(rest.length)} smaller ones`, kids: new Map(), up: node, t: null, bytes: rest.reduce((a, i) => a + i.bytes, 0), count: rest.length, n: rest.reduce((a, i) => a + i.n, 0), nan: rest.reduce((a, i) => a + i.nan, 0) };
      squarify([...items.slice(0, BLOCKS - 1), others], 0, 0, w, H).forEach((r) => block(r, 0));
    } else blocks.forEach((r) => block(r, 0));
    if (!blocks.length) element.append(h('p', { class: 'muted' }, 'No bytes of its own.'));
    const chain = [];
    for (let up = node; up; up = up.up) chain.unshift(up);
    crumbs.replaceChildren(...chain.flatMap((up, i) => [i ? ' / ' : '', up === node ? h('b', {}, up.name || 'all tensors') : h('button', { type: 'button', class: 'link', onclick: () => go(up) }, up.name || 'all tensors')]),
      ` · ${size(node.bytes)} · ${plural(node.count, 'tensor')} · ${plural(node.n, 'value')}`);
  }
  return { element, crumbs, tip, draw, focus: () => $('button', element)?.focus({ preventScroll: true }) };
}
