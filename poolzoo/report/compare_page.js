"use strict";
// Sorts and filters the leaderboards, draws the charts and shows one comparison at a time where the page has several.
// `charts` holds the figures of each chart by its name: a list, or on a page of many comparisons a compact form of it.

const root = document.documentElement;
root.classList.add("live");

// --- The leaderboards ---

function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0];
  const backwards = {ascending: "descending", descending: "ascending"};
  const order = backwards[header.getAttribute("aria-sort")] ?? header.dataset.first;
  const sign = order === "ascending" ? 1 : -1;
  const numeric = header.dataset.kind === "number";
  const keyed = [...body.rows].map((row, place) => {
    const key = row.cells[header.cellIndex].dataset.key;
    return {row, place, key: numeric && key !== undefined ? Number(key) : key};
  });
  keyed.sort((a, b) => {
    if (a.key === undefined || b.key === undefined) // missing values come last in both orders
      return (a.key === undefined) - (b.key === undefined) || a.place - b.place;
    return a.key < b.key ? -sign : a.key > b.key ? sign : a.place - b.place;
  });
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", other === header ? order : "none");
  body.append(...keyed.map(item => item.row));
}

for (const button of document.querySelectorAll(".leaderboard thead button"))
  button.addEventListener("click", () => sortBy(button.closest("th")));

for (const table of document.querySelectorAll(".leaderboard")) {
  const part = table.closest("section"), filter = part.querySelector("input"), rows = [...table.tBodies[0].rows];
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    part.querySelector("output").value = `${rows.filter(row => !row.hidden).length} of ${rows.length}`;
  };
  filter.addEventListener("input", apply);
  apply(); // a browser may have restored an earlier input
}

// --- The charts ---

const PAPER = 640; // CSS pixels of a chart on paper, which is no wider than A4 or Letter with their margins

// A part of a figure after a patch: arrays are patched by index, and null removes a key.
function patched(part, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const result = Array.isArray(part) ? [...part] : {...part};
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete result[key];
    else result[key] = patched(result[key], value);
  return result;
}

// A figure with whole hover texts; the compact form has their common prefix once.
function unpacked(figure) {
  const whole = ({start, ends}) => ends.map(end => start + end);
  const trace = one => one.hovertext ? {...one, hovertext: whole(one.hovertext)} : one;
  return {...figure, data: figure.data.map(trace)};
}

for (const [name, {first, others}] of Object.entries(charts))
  if (first) charts[name] = [first, ...others.map(other => patched(first, other))].map(unpacked);

// A copy of a figure in which names of colors, such as `--ink` or `--hue-1:2e`, are the colors themselves.
function colored(part, colors, key = "") {
  if (Array.isArray(part)) return part.map(item => colored(item, colors, key));
  if (part && typeof part === "object")
    return Object.fromEntries(Object.entries(part).map(([k, value]) => [k, colored(value, colors, k)]));
  if (typeof part !== "string" || !key.endsWith("color") || !part.startsWith("--")) return part;
  const [name, opacity = ""] = part.split(":");
  return colors.getPropertyValue(name).trim() + opacity;
}

function draw(figure) {
  const place = figure.querySelector(".chart"), figures = charts[figure.dataset.chart];
  const chosen = colored(figures[figure.querySelector("select")?.value || 0], getComputedStyle(root));
  const ticked = new Set([...figure.querySelectorAll("input:checked")].map(box => Number(box.value)));
  const data = chosen.data.filter(trace => trace.meta === undefined || ticked.has(trace.meta));
  const paper = root.classList.contains("paper");
  const fine = matchMedia("(pointer: fine)").matches; // a finger scrolls the page over a chart
  const layout = {...chosen.layout, width: paper ? PAPER : place.clientWidth, dragmode: fine ? "zoom" : false};
  Plotly.react(place, data, layout, {displayModeBar: false, doubleClick: "reset"});
}

const figures = [...document.querySelectorAll("figure[data-chart]")];
const drawAll = () => figures.filter(figure => figure.clientWidth).forEach(draw); // a hidden figure has no width

for (const figure of figures) {
  figure.querySelector(".chart").replaceChildren();
  figure.addEventListener("change", () => draw(figure));
  for (const button of figure.querySelectorAll("button"))
    button.addEventListener("click", () => {
      for (const box of figure.querySelectorAll("input")) box.checked = button.value === "all";
      draw(figure);
    });
}

// --- The comparisons ---

const comparisons = [...document.querySelectorAll("article")], tabs = document.querySelector("nav");

// Shows the comparison that the address names, itself or by a section; the first one where it names none.
function choose() {
  const target = document.getElementById(location.hash.slice(1));
  const chosen = target?.closest("article") ?? comparisons[0];
  for (const comparison of comparisons) comparison.hidden = comparison !== chosen;
  for (const link of tabs?.querySelectorAll("a") ?? []) {
    link.ariaCurrent = link.hash === `#${chosen.id}` ? "true" : null;
    if (link.ariaCurrent) tabs.scrollLeft = link.offsetLeft + (link.offsetWidth - tabs.clientWidth) / 2; // its middle
  }
  drawAll();
  root.style.scrollPaddingTop = `${tabs?.offsetHeight ?? 0}px`;
  target?.scrollIntoView(); // it was hidden when the browser would have done so
}
addEventListener("hashchange", choose);
choose();

let width = root.clientWidth;
addEventListener("resize", () => {
  if (root.clientWidth === width) return; // a phone hides its address bar
  width = root.clientWidth;
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
addEventListener("beforeprint", () => { root.classList.add("paper"); drawAll(); });
addEventListener("afterprint", () => { root.classList.remove("paper"); drawAll(); });
