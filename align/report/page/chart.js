// A chart of lines, with bands or stacked: legend to switch lines off, values under the pointer or the arrow keys.
const SIZE = { width: 480, height: 230, left: 52, right: 10, top: 8, bottom: 32 };
const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 2", "12 4"];

// `series`: [{name, colour, dash, points: [[x, y]], band: [[x, low, high]]}]
function chart({ title, unit = "", help = "", series, xLabel, share = false, stacked = false, marks = [], view = {}, logX = false, dots = false }) {
  const hidden = new Set();
  const plot = h("div");
  const legend = h("div", { class: "legend" });
  const readout = h("div", { class: "readout", hidden: true });
  const said = h("div", { class: "skip", "aria-live": "polite" });
  const caption = h("figcaption", {}, title, " ", h("span", {}, [unit && `[${unit}]`, help].filter(Boolean).join(" ")));
  const figure = h("figure", {}, caption, legend, plot, readout, said);
  const format = share ? percent : (y) => number(y);

  function draw() {
    const shown = series.filter((one) => !hidden.has(one.name));
    plot.replaceChildren(drawn(shown));
  }

  function drawn(shown) {
    const lines = stacked ? stackedLines(shown) : shown;
    const log = view.log && !stacked;
    const positive = (y) => !log || y > 0;
    const xs = lines.flatMap((one) => one.points.map(([x]) => x));
    const raws = lines.flatMap((one) => [...one.points.map(([, y]) => y), ...(one.band || []).flatMap(([, a, b]) => [a, b])]);
    const ys = raws.filter((y) => Number.isFinite(y) && positive(y));
    if (!ys.length) return h("p", { class: "quiet" }, "Nothing to draw.");
    const { width, height, left, right, top, bottom } = SIZE;
    let [low, high] = [least(ys), most(ys)];
    if (!log) {
      if (stacked || (share && low >= 0 && low < 0.25 * high)) low = Math.min(low, 0);
      const room = (high - low) * 0.06;
      [low, high] = [low === 0 ? 0 : low - room, high + room];
      if (share) [low, high] = [low < 0 && least(ys) >= 0 ? 0 : low, high > 1 && most(ys) <= 1 ? 1 : high];
    }
    const x = axis(least(xs), most(xs), { begin: left, end: width - right, count: 6, log: logX, base: 2 });
    const y = axis(low, high, { begin: height - bottom, end: top, count: 4, log });
    const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": summary(title, shown, format) });
    for (const tick of y.ticks) {
      svg.append(s("line", { class: "grid", x1: left, x2: width - right, y1: y.at(tick), y2: y.at(tick) }),
        s("text", { x: left - 6, y: y.at(tick) + 4, "text-anchor": "end" }, share ? `${number(100 * tick, 3)}%` : number(tick)));
    }
    for (const tick of x.ticks) {
      svg.append(s("text", { x: x.at(tick), y: height - bottom + 15, "text-anchor": "middle" }, compact(tick)));
    }
    svg.append(s("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
      s("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, xLabel));
    for (const mark of marks) {
      const at = x.at(mark.x);
      if (at >= left && at <= width - right) {
        svg.append(s("line", { class: "mark", x1: at, x2: at, y1: top, y2: height - bottom }, s("title", {}, mark.text)));
      }
    }
    for (const one of lines) {
      const path = (points) => points.filter(([, value]) => Number.isFinite(value) && positive(value))
        .map(([px, py], i) => `${i ? "L" : "M"}${x.at(px).toFixed(1)} ${y.at(py).toFixed(1)}`).join("");
      if (one.area) svg.append(s("path", { d: `${path(one.points)}${path([...one.area].reverse()).replace("M", "L")}Z`, style: `fill:${one.colour}`, "fill-opacity": 0.75 }));
      if (one.band) {
        const bottomLine = one.band.map(([px, a]) => [px, a]).reverse();
        svg.append(s("path", { d: `${path(one.band.map(([px, , b]) => [px, b]))}${path(bottomLine).replace("M", "L")}Z`, style: `fill:${one.colour}`, "fill-opacity": 0.16 }));
      }
      if (one.area) continue;
      const soft = view.smooth ? smoothed(one.points, view.smooth) : one.points;
      const stroke = { fill: "none", style: `stroke:${one.colour}`, "stroke-dasharray": one.dash || null, "stroke-linejoin": "round" };
      if (soft !== one.points) svg.append(s("path", { d: path(one.points), ...stroke, "stroke-width": 1, "stroke-opacity": 0.28 }));
      svg.append(s("path", { d: path(soft), ...stroke, "stroke-width": 1.8 }));
      if (dots || one.points.length < 2) {
        for (const [px, py] of one.points) if (positive(py)) svg.append(s("circle", { cx: x.at(px), cy: y.at(py), r: 3, style: `fill:${one.colour}` }));
      }
    }
    listen(svg, shown, x);
    return svg;
  }

  function listen(svg, shown, x) {
    const all = [...new Set(shown.flatMap((one) => one.points.map(([px]) => px)))].sort((a, b) => a - b);
    const cursor = s("line", { class: "cursor", y1: SIZE.top, y2: SIZE.height - SIZE.bottom, visibility: "hidden" });
    svg.append(cursor);
    let place = all.length - 1;
    const show = (index) => {
      place = Math.max(0, Math.min(all.length - 1, index));
      const at = all[place];
      const rows = shown.map((one) => [one, nearest(one.points, at)]).filter(([, point]) => point && point[0] === at);
      cursor.setAttribute("x1", x.at(at));
      cursor.setAttribute("x2", x.at(at));
      cursor.setAttribute("visibility", "visible");
      readout.replaceChildren(h("strong", {}, `${xLabel} ${number(at, 7)}`), ...rows.map(([one, [, value]]) => h("div", {},
        h("span", { class: "swatch", style: `background:${one.colour}` }), `${one.name} ${format(value)}${bandText(one, at, format)}`)));
      readout.hidden = false;
      const leftHalf = x.at(at) < SIZE.width / 2;
      readout.style.left = leftHalf ? "auto" : ".8rem";
      readout.style.right = leftHalf ? ".8rem" : "auto";
      return readout.textContent;
    };
    const hide = () => {
      cursor.setAttribute("visibility", "hidden");
      readout.hidden = true;
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const px = ((event.clientX - box.left) / box.width) * SIZE.width;
      let best = 0;
      for (let i = 0; i < all.length; i++) if (Math.abs(x.at(all[i]) - px) < Math.abs(x.at(all[best]) - px)) best = i;
      show(best);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: all.length - 1, PageUp: place - 10, PageDown: place + 10 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      said.textContent = show(moves[event.key]);
    });
  }

  const names = series.length > 1 ? series : [];
  legend.append(...names.map((one) => h("button", {
    type: "button", "aria-pressed": "true",
    onclick: (event) => {
      if (!hidden.delete(one.name)) hidden.add(one.name);
      event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(one.name)));
      draw();
    },
  }, s("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" }, s("line", { x1: 0, x2: 22, y1: 4, y2: 4, style: `stroke:${one.colour}`, "stroke-width": stacked ? 8 : 2.5, "stroke-dasharray": one.dash || null })), one.name)));
  if (!names.length) legend.remove();
  draw();
  return figure;
}

function stackedLines(series) {
  const xs = [...new Set(series.flatMap((one) => one.points.map(([x]) => x)))].sort((a, b) => a - b);
  let below = xs.map((x) => [x, 0]);
  return series.map((one) => {
    const values = new Map(one.points);
    const top = below.map(([x, y]) => [x, y + (values.get(x) || 0)]);
    const area = { ...one, area: below, points: top };
    below = top;
    return area;
  });
}

function nearest(points, at) {
  let [from, to] = [0, points.length - 1];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (points[middle][0] < at) from = middle + 1;
    else to = middle;
  }
  return points[from];
}

function bandText(one, at, format) {
  const found = (one.band || []).find(([x]) => x === at);
  return found ? ` (${format(found[1])} to ${format(found[2])})` : "";
}

function summary(title, shown, format) {
  const lines = shown.slice(0, 6).filter((one) => one.points.length).map((one) => `${one.name}: ${format(one.points[0][1])} at first, ${format(one.points[one.points.length - 1][1])} at last`);
  return `${title}. ${lines.join("; ")}`;
}

function compact(x) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) if (Math.abs(x) >= size) return number(x / (unit === "k" ? 1e3 : size), 4) + unit;
  return number(x, 5);
}

function least(values) {
  return values.reduce((a, b) => (b < a ? b : a), Infinity);
}

function most(values) {
  return values.reduce((a, b) => (b > a ? b : a), -Infinity);
}
