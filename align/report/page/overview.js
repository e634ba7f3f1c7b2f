// Verdict, facts, alerts, curves and recipes.
const MARKS = { good: "good", neutral: "note", warning: "look", bad: "bad" };

function showOverview(overview) {
  const several = overview.runs.length > 1;
  document.title = `${overview.runs.map((run) => run.name).join(", ")} - align report`;
  $("written").textContent = LIVE ? `live, last changed ${overview.written.replace("T", " ").replace("+00:00", " UTC")}` : `written ${overview.written.replace("T", " ").replace("+00:00", " UTC")} by align ${overview.align}`;
  put(body("overview"), [
    h("div", { class: "runs" }, overview.runs.map((run, i) => h("div", { class: several ? "panel" : "panel alone" },
      several && h("h3", {}, h("span", { class: "swatch", style: `background:${colour(i)}` }), run.name),
      h("ul", { class: "verdict" }, run.verdict.map(({ mark, text }) => h("li", {}, badge(mark, MARKS[mark]), h("span", {}, text)))),
      h("dl", { class: "facts" }, Object.entries(run.facts).map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]))))),
    several && h("h3", {}, "What differs in their recipes"),
    several && (overview.differences.length
      ? table(["key", ...overview.runs.map((run) => run.name)], overview.differences.map(({ key, values }) => [h("code", {}, key), ...values.map((value) => (value === null ? "-" : h("code", {}, value)))]))
      : h("p", {}, "Nothing."))]);
  showAlerts(overview);
  body("recipe").replaceChildren(...overview.runs.map((run) => h("details", {}, h("summary", {}, `${run.name}: every value of its recipe`), h("pre", { class: "scroll" }, run.recipe))));
}

function showAlerts(overview) {
  const several = overview.runs.length > 1;
  const found = overview.runs.flatMap((run) => run.alerts.map((alert) => [run, alert]));
  body("alerts").replaceChildren(...(found.length ? found.map(([run, alert]) => h("div", { class: "alert" },
    badge(alert.level, alert.level === "bad" ? "broken" : "look"),
    h("div", {},
      h("div", {}, several && h("strong", {}, `${run.name}, `), h("strong", {}, `step ${alert.step}: `), alert.text, alert.count > 1 && ` (${alert.count} times)`),
      h("div", { class: "quiet" }, `Try: ${alert.suggestion}`),
      alert.examples.length > 0 && h("details", {}, h("summary", {}, "Examples"), alert.examples.map((example) => h("pre", {}, example)))))) : [h("p", {}, "None.")]));
}

// The lines of metrics over steps, tokens or time.
function lines(overview, keys, over) {
  const several = overview.runs.length > 1;
  return overview.runs.flatMap((run, r) => keys.map((key, k) => {
    const xs = over === "step" ? run.steps : run.metrics[over] || [];
    const points = (run.metrics[key] || []).map((y, i) => [over === "elapsed" && xs[i] !== null ? xs[i] / 60 : xs[i], y]).filter(([x, y]) => y !== null && x !== null && x !== undefined);
    return {
      name: several ? (keys.length > 1 ? `${run.name}: ${key}` : run.name) : key,
      colour: colour(several ? r : k),
      dash: several ? DASHES[k % DASHES.length] : DASHES[Math.floor(k / 8) % DASHES.length],
      points,
    };
  })).filter((one) => one.points.length);
}

const X_LABELS = { step: "step", num_tokens: "tokens", elapsed: "minutes" };

function showCurves(overview, view) {
  const sections = new Map();
  for (const one of overview.charts) {
    const series = lines(overview, one.keys, view.over);
    if (!series.length) continue;
    const marks = view.over !== "step" ? [] : overview.runs.flatMap((run) => run.alerts.filter((alert) => one.keys.includes(alert.metric)).map((alert) => ({ x: alert.step, text: alert.text })));
    const figure = chart({ ...one, series, marks, view, xLabel: X_LABELS[view.over], stacked: one.stacked && overview.runs.length === 1 });
    if (!sections.has(one.section)) sections.set(one.section, []);
    sections.get(one.section).push(figure);
  }
  const rest = "Everything else";
  body("curves").replaceChildren(...(sections.size ? [...sections].map(([name, figures]) => name === rest
    ? h("details", {}, h("summary", {}, h("h3", { style: "display:inline" }, `${rest} (${figures.length})`)), h("div", { class: "charts" }, figures))
    : h("div", {}, h("h3", {}, name), h("div", { class: "charts" }, figures))) : [h("p", {}, "No step has been logged yet.")]));
}
