// Elements and numbers. Text of models only ever becomes text: nothing here reads markup.
function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  return put(element, children, false);
}

// Put these children into an element; what is null or false is left out.
function put(element, children, instead = true) {
  const there = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  if (instead) element.replaceChildren(...there);
  else element.append(...there);
  return element;
}

function $(id) {
  return document.getElementById(id);
}

function body(section) {
  return document.querySelector(`#${section} > div`);
}

function number(x, digits = 4) {
  if (x === null || x === undefined || Number.isNaN(x)) return "-";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size < 1e-3 || size >= 1e7) return x.toExponential(digits - 2).replace(/\.?0+e/, "e");
  const text = size >= 1e4 ? Math.round(x).toString() : String(Number(x.toPrecision(digits)));
  return size >= 1e4 ? text.replace(/\B(?=(\d{3})+$)/g, ",") : text;
}

function percent(x) {
  return `${number(100 * x, 3)} %`;
}

function signed(x) {
  return (x > 0 ? "+" : "") + number(x, 3);
}

function colour(place) {
  return `var(--c${place % 8})`;
}

function badge(mark, text) {
  return h("span", { class: `badge ${mark}` }, text);
}

function table(heads, rows) {
  const isNumber = (cell) => typeof cell === "string" && /^[-+]?[\d.]/.test(cell);
  const numeric = heads.map((_, i) => rows.length > 0 && rows.every((row) => row[i] === "" || isNumber(row[i])));
  const cell = (tag, content, i) => h(tag, { class: numeric[i] && "number", scope: tag === "th" ? "col" : null }, content);
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, heads.map((head, i) => cell("th", head, i)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((content, i) => cell("td", content, i)))))));
}
