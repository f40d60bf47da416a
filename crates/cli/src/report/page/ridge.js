// Histograms of one tensor over the checkpoints, oldest on top.

function ridge(side, data, values, cols) {
  const R2 = R.data.ridge, row = heat.row, name = data.labels[row], K = cols.length;
  const slot = R2 ? R2.rows.indexOf(row) : -1, tensor = R.T[data.tensor[row]];
  const head = [
    h('h3', { class: 'mono wrap' }, name),
    h('p', { class: 'tiny muted' }, tensor ? `${tensor.dtype} ${tensor.shape} · ${plural(tensor.n, 'value')}` : `${plural(data.count[row], 'value')} together`),
  ];
  const below = alt('Its numbers as a table', () => {
    const of = (key, j) => values[key][row * K + j];
    return table(['step', 'norm', 'std', 'update', 'zeros'].map((t) => ({ t, num: true })),
      cols.map((c, j) => ({ c: [{ t: int(c.step), v: c.step }, ...['norm', 'std', 'update', 'zeros'].map((key) => {
        const v = of(key, j);
        return { t: key === 'zeros' && v === v ? percent(v, 2) : key === 'update' && !j ? '–' : num(v, 3), v };
      })] })), { sort: 0, dir: 1, focus: `numbers of ${name}` });
  });
  if (slot < 0) {
    side.replaceChildren(...head, h('p', { class: 'small muted' }, tensor
      ? 'No histograms of this one: only those of the tensors that changed most are in the page.'
      : 'Choose a tensor for its histograms; a module has none of its own.'), below);
    return;
  }
  const bytes = bytesOf(R2.h), [lo, hi] = R2.range[slot], count = R2.cols.length, left = 52, rowH = 13, top = 40;
  const w = Math.min(innerWidth < 1024 ? 520 : 336, Math.floor(side.clientWidth) || 336), W = w - left - 44, H = top + count * rowH + 26;
  const g = s('svg', { width: w, height: H, role: 'img', 'aria-label': `histograms of ${name} over ${count} checkpoints` });
  const isBad = (j) => values.norm[row * K + j] !== values.norm[row * K + j], firstBad = R2.cols.findIndex(isBad);
  R2.cols.forEach((j, k) => {
    const y = top + (k + 1) * rowH, base = (slot * count + k) * R2.bins, bad = isBad(j), on = heat.column === j;
    let d = `M${left} ${y}`;
    for (let b = 0; b < R2.bins; b++) d += `L${(left + ((b + 0.5) / R2.bins) * W).toFixed(1)} ${(y - (bytes[base + b] / 255) * 46).toFixed(1)}`;
    g.append(s('path', { d: `${d}L${left + W} ${y}Z`, fill: bad ? 'var(--bad-soft)' : 'var(--accent-soft)', stroke: bad ? 'var(--bad)' : 'var(--ink)', 'stroke-width': on ? 2.2 : 1.1, 'stroke-linejoin': 'round' }));
    const last = k === count - 1, crowded = k === count - 2 && count % 3 === 0;
    if ((k % 3 === 0 && !crowded) || last || on || (bad && k === firstBad)) g.append(text(left - 8, y + 3, int(cols[j].step), { 'text-anchor': 'end', class: on ? 's' : null }));
    if (k === firstBad) g.append(text(w, y + 3, 'NaN', { 'text-anchor': 'end', class: 'b' }));
  });
  for (const t of ticks(lo, hi, 3)) {
    const x = left + ((t - lo) / (hi - lo || 1)) * W;
    g.append(line(x, top + count * rowH, x, top + count * rowH + 4, 'var(--hair)'), text(x, H - 8, short(t), { 'text-anchor': 'middle' }));
  }
  head[1].textContent += ` · ${count} histograms, oldest on top`;
  side.replaceChildren(...head, g, below);
}
