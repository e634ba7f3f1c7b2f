// The list of groups, a page at a time, and the samples of a group side by side.
const PAGE = 20;

function rolloutBrowser(overview, blocks) {
  const filters = { ...FILTERS };
  const state = { found: [], page: 0, question: 0, blocks, overview, open: new Set() };
  let waiting = null;

  function form() {
    $("filters").replaceChildren(...filterForm(state.overview, state.blocks, filters, (typed, cleared) => {
      if (cleared) form();
      clearTimeout(waiting);
      waiting = setTimeout(apply, typed ? 250 : 0);
    }));
  }

  async function apply() {
    const question = ++state.question;
    let found = filtered(state.blocks, filters);
    if (filters.text.trim()) {
      found = await searched(found, filters.text.trim(), () => question !== state.question, (share) => { $("found").textContent = `Searching ... ${percent(share)}`; });
      if (found === null) return;
    }
    state.found = found;
    state.page = 0;
    await showPage();
  }

  async function showPage() {
    const { found, page } = state;
    for (const id of ["filters", "pager"]) $(id).hidden = !state.blocks.length;
    if (!state.blocks.length) {
      $("found").textContent = "No samples have been recorded: this kind of training writes none, or has not come to its first step.";
      return;
    }
    const samples = found.reduce((sum, one) => sum + one.matching.length, 0);
    const { shown, samples: all } = state.overview;
    const rule = shown < all ? ` This file holds ${number(shown, 7)} of the ${number(all, 7)} samples: of each step the same share of the prompts, at even distances and with all their samples.` : "";
    const count = (n, one, many) => `${number(n, 7)} ${n === 1 ? one : many}`;
    const visible = found.slice(page * PAGE, (page + 1) * PAGE);
    const question = state.question;
    const rows = await Promise.all(visible.map((one) => groupRow(one, filters, state)));
    if (question !== state.question) return;
    $("found").textContent = `${count(samples, "sample", "samples")} of ${count(found.length, "prompt", "prompts")}.${rule}`;
    $("groups").replaceChildren(...rows);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const go = (to) => async () => { state.page = to; await showPage(); $("rollouts").scrollIntoView(); };
    $("pager").replaceChildren(
      h("button", { type: "button", disabled: page === 0, onclick: go(page - 1) }, "Previous"),
      h("span", {}, `page ${page + 1} of ${pages}`),
      h("button", { type: "button", disabled: page >= pages - 1, onclick: go(page + 1) }, "Next"));
  }

  async function update(overview, blocks) { // new samples came: the list is not moved under someone who reads
    const isReading = $("groups").querySelector("details[open]") !== null || document.activeElement?.closest("#filters");
    Object.assign(state, { overview, blocks });
    if (!isReading) { form(); await apply(); return; }
    const old = $("found").querySelector("button");
    if (!old) $("found").append(" ", h("button", { type: "button", onclick: () => { form(); apply(); } }, "There are new samples: show them"));
  }

  form();
  return { ready: apply(), update, apply };
}

function statusOf(block, i) {
  const all = Object.values(block.verdicts).map((list) => list[i]).filter((one) => one !== null);
  return ["error", "unparsable", "fail", "pass"].find((one) => all.includes(one)) || "none";
}

async function groupRow(one, filters, state) {
  const { block, group, first, size, matching } = one;
  const texts = await part(`${block.name}-texts`);
  const rewards = block.reward.slice(first, first + size).filter((x) => x !== null);
  const mean = rewards.length ? rewards.reduce((a, b) => a + b, 0) / rewards.length : null;
  const strip = h("span", { class: "strip", "aria-hidden": "true" }, Array.from({ length: Math.min(size, 32) }, (_, i) => h("i", { class: `s-${statusOf(block, first + i)}`, title: `${statusOf(block, first + i)}, reward ${number(block.reward[first + i])}` })));
  const where = `${block.origin === "training" ? "" : `${block.origin}, `}step ${block.step}`;
  const name = state.overview.runs.length > 1 ? `${state.overview.runs[block.run].name}, ` : "";
  const content = h("div", { class: "body" });
  const summary = h("summary", {},
    h("span", {}, name + where), h("span", { class: "excerpt" }, texts.prompts[group].trim().split("\n").pop().slice(0, 200) || texts.ids[group]),
    strip, h("span", {}, matching.length < size ? `${matching.length} of ${size} match, ` : "", `reward ${number(mean, 3)}`));
  return h("details", {
    class: "group",
    ontoggle: async (event) => { if (event.target.open && !content.hasChildNodes()) content.append(...(await groupBody(one, texts, filters))); },
  }, summary, content);
}

async function groupBody({ block, group, first, size, matching }, texts, filters) {
  const hasTokens = block.tokens.slice(first, first + size).some(Boolean);
  const records = hasTokens ? tokenRecords(await part(`${block.name}-tokens`), first, size) : [];
  const shade = filters.shade;
  const scale = shade === "none" || !hasTokens ? 0 : shadeScale(records, shade);
  const card = (i) => sampleCard(block, i, texts, records[i - first], shade, scale, filters.text);
  const others = Array.from({ length: size }, (_, i) => first + i).filter((i) => !matching.includes(i));
  const cards = h("div", { class: "cards" }, matching.map(card));
  const more = others.length > 0 && h("button", { type: "button", onclick: (event) => { cards.append(...others.map(card)); event.target.remove(); } }, `Show the ${others.length} other samples of this prompt`);
  return [
    h("p", { class: "quiet" }, `${texts.ids[group]}, source ${block.sources[group]}`),
    h("div", { class: "prompt text", tabindex: 0, role: "group", "aria-label": "Prompt" }, marked(texts.prompts[group], filters.text)),
    texts.answers[group] !== null && h("p", {}, "Reference: ", h("code", {}, texts.answers[group])),
    shade !== "none" && (hasTokens ? shadeLegend(shade, scale) : h("p", { class: "quiet" }, "The tokens of this sample are not recorded; log.tokens_every says at which steps they are.")),
    cards, more,
  ].filter(Boolean);
}

function sampleCard(block, i, texts, record, shade, scale, search) {
  const facts = [`reward ${number(block.reward[i])}`, block.advantage[i] !== null && `advantage ${signed(block.advantage[i])}`, `${block.length[i]} tokens`,
    block.cut[i] && "cut off", block.version[i] !== null && `weights ${block.version[i]}`, !block.used[i] && "not trained on"].filter(Boolean);
  const kinds = { pass: "good", fail: "bad", unparsable: "warning", error: "neutral" };
  const verdicts = Object.entries(block.verdicts).filter(([, list]) => list[i] !== null).map(([name, list]) => h("li", {},
    badge(kinds[list[i]], list[i]), ` ${name} ${number(block.values[name][i])}`, texts.details[name][i] && ": ", marked(texts.details[name][i], search)));
  const text = record && shade !== "none" ? tokenText(record, shade, scale) : h("div", { class: "text", tabindex: 0, role: "group", "aria-label": `Completion ${block.sample[i]}` }, marked(texts.completions[i], search));
  return h("article", { class: "card" }, h("header", {}, h("strong", {}, `sample ${block.sample[i]}`), facts.map((fact) => h("span", {}, fact))), text, h("ul", { class: "verdicts" }, verdicts));
}

function marked(text, search) {
  const wanted = search.trim().toLowerCase();
  if (!wanted || text.toLowerCase().length !== text.length) return [text];
  const pieces = [];
  let from = 0;
  for (let at = text.toLowerCase().indexOf(wanted); at >= 0; at = text.toLowerCase().indexOf(wanted, from)) {
    pieces.push(text.slice(from, at), h("mark", {}, text.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  return [...pieces, text.slice(from)];
}
