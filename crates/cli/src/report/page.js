
"use strict";
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
// On a narrow screen the newest is what is seen.
for (const wide of document.querySelectorAll("#timeline .wide")) wide.scrollLeft = wide.scrollWidth;
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const value = (row) => {
      const cell = row.cells[column];
      if (!cell) return "";
      return cell.dataset.k !== undefined ? Number(cell.dataset.k) : cell.textContent;
    };
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (typeof x === "number" && typeof y === "number") return x - y;
      return String(x).localeCompare(String(y), undefined, { numeric: true });
    };
    const rows = [...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a)));
    body.append(...rows);
  }));
}
const diff = document.getElementById("diff");
if (diff) {
  const [from, to] = diff.querySelectorAll("select");
  const dots = [...document.querySelectorAll("circle.pick")];
  const show = () => {
    // A pair is compared one way; the other way is the same pair.
    const either = [`${from.value} ${to.value}`, `${to.value} ${from.value}`];
    for (const pair of diff.querySelectorAll(".pair")) pair.hidden = !either.includes(pair.dataset.pair);
    diff.querySelector(".same").hidden = from.value !== to.value;
    for (const dot of dots) dot.classList.toggle("picked", [from.value, to.value].includes(dot.dataset.name));
  };
  [from, to].forEach((select) => select.addEventListener("change", show));
  let next = from;
  for (const dot of dots) {
    dot.addEventListener("click", () => {
      next.value = dot.dataset.name;
      next = next === from ? to : from;
      show();
    });
  }
  show();
}
