// Held-out problems: what was estimated at each evaluation, pass@k by k, and the change on the same problems.
function showHeldOut(overview) {
  const several = overview.runs.length > 1;
  const parts = overview.runs.map((run, r) => heldOutOf(run, several && h("h3", {}, h("span", { class: "swatch", style: `background:${colour(r)}` }), run.name)));
  const charts = [...estimateCharts(overview), ...byKCharts(overview)];
  const any = overview.runs.some((run) => run.evaluations.length);
  body("held-out").replaceChildren(...(any ? [...parts, h("div", { class: "charts" }, charts)] : [h("p", {}, "There was no evaluation.")]));
}

function heldOutOf(run, head) {
  const ends = run.evaluations.length > 1 ? [run.evaluations[0], run.evaluations[run.evaluations.length - 1]] : run.evaluations;
  const names = [...new Set(ends.flatMap((one) => Object.keys(one.estimates)))];
  const interval = (one) => (one ? `${one.value.toFixed(3)} (${one.low.toFixed(3)} to ${one.high.toFixed(3)})` : "");
  const rows = names.map((name) => {
    const change = run.changes.find((one) => one.name === name);
    const cells = ends.map((one) => interval(one.estimates[name]));
    if (ends.length < 2) return [name, ...cells];
    const plain = ends[0].estimates[name] && ends[1].estimates[name] ? ends[1].estimates[name].value - ends[0].estimates[name].value : null;
    const text = change ? `${fixed(change.value)} (${fixed(change.low)} to ${fixed(change.high)})` : plain === null ? "" : fixed(plain);
    if (!run.changes.length) return [name, ...cells, text];
    return [name, ...cells, text, change ? intervalBar(change) : "", change ? `${change.rose} rose, ${change.fell} fell, of ${change.problems}` : ""];
  });
  const heads = ["", ...ends.map((one) => `${one.name} (95 % interval)`), ...(ends.length < 2 ? [] : run.changes.length ? ["change on the same problems", "", "problems"] : ["change"])];
  return h("div", {}, head, rows.length > 0 && table(heads, rows));
}

function fixed(x) {
  return (x >= 0 ? "+" : "") + x.toFixed(3);
}

// The change and its interval on a line from -1 to 1, with 0 in the middle.
function intervalBar({ value, low, high }) {
  const at = (x) => 70 + 65 * Math.max(-1, Math.min(1, x));
  const colours = low > 0 ? "--good" : high < 0 ? "--bad" : "--soft";
  return s("svg", { viewBox: "0 0 140 16", width: 140, height: 16, role: "img", "aria-label": `${fixed(value)}, from ${fixed(low)} to ${fixed(high)}, on a line from -1 to 1` },
    s("line", { class: "axis", x1: 5, x2: 135, y1: 8, y2: 8 }), s("line", { class: "cursor", x1: 70, x2: 70, y1: 2, y2: 14 }),
    s("line", { x1: at(low), x2: at(high), y1: 8, y2: 8, style: `stroke:var(${colours})`, "stroke-width": 4 }),
    s("circle", { cx: at(value), cy: 8, r: 4, style: `fill:var(${colours})` }));
}

function estimateCharts(overview) {
  const several = overview.runs.length > 1;
  const names = [...new Set(overview.runs.flatMap((run) => run.evaluations.flatMap((one) => Object.keys(one.estimates))))];
  const isPass = (name) => name.startsWith("pass@");
  const groups = [names.filter(isPass), ...names.filter((name) => !isPass(name)).map((name) => [name])].filter((group) => group.length);
  return groups.map((group) => {
    const series = overview.runs.flatMap((run, r) => group.map((name, k) => {
      const found = run.evaluations.filter((one) => one.estimates[name]).map((one) => [one.step, one.estimates[name]]);
      return {
        name: several ? `${run.name}: ${name}` : name, colour: colour(several ? r : k), dash: several ? DASHES[k % DASHES.length] : "",
        points: found.map(([step, { value }]) => [step, value]), band: found.map(([step, { low, high }]) => [step, low, high]),
      };
    })).filter((one) => one.points.length);
    const title = isPass(group[0]) ? "pass@k over the run" : `${group[0]} over the run`;
    return chart({ title, help: "band: 95 % interval", series, xLabel: "step", dots: true });
  });
}

function byKCharts(overview) {
  const several = overview.runs.length > 1;
  const series = overview.runs.flatMap((run, r) => Object.entries(run.by_k).map(([name, curve], e, all) => ({
    name: several ? `${run.name}: ${name}` : name, colour: colour(several ? r : e), dash: several && e < all.length - 1 ? DASHES[1] : "",
    points: curve.map(({ k, value }) => [k, value]), band: curve.map(({ k, low, high }) => [k, low, high]),
  })));
  return series.length ? [chart({ title: "pass@k by k", help: "band: 95 % interval", series, xLabel: "k", logX: true, dots: true })] : [];
}
