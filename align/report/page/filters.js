// Which samples are shown: the filters, and the groups that have a sample they let through.
const FILTERS = { run: "", origin: "training", chosen: false, from: "", to: "", source: "", reward: "", status: "", length: "", above: "", only: "", order: "new", text: "", shade: "none" };
const ORDERS = { new: "newest first", old: "oldest first", spread: "most varied rewards", low: "lowest reward", high: "highest reward", long: "longest" };
const ONLY = { "": "all samples", cut: "cut off at the limit", tokens: "with token values", unused: "not trained on" };

function filterForm(overview, blocks, filters, onChange) {
  const values = (of) => [...new Set(blocks.flatMap(of))].filter((one) => one !== null && one !== undefined).sort();
  const select = (name, label, options) => options.length > 1 && h("label", {}, label, h("select", { name, onchange: take }, options.map(([value, text]) => h("option", { value, selected: String(filters[name]) === value }, text))));
  const numbers = (name, label, hint) => h("label", {}, label, h("input", { type: "number", name, value: filters[name], placeholder: hint, oninput: take, min: 0 }));
  const origins = values((block) => [block.origin]).sort((a, b) => (b === "training") - (a === "training"));
  if (!filters.chosen || !origins.includes(filters.origin)) filters.origin = origins[0] || "training"; // training, once it has begun
  const rewards = values((block) => Object.keys(block.verdicts));
  const statuses = values((block) => Object.values(block.verdicts).flat());
  function take(event) {
    filters[event.target.name] = event.target.value;
    if (event.target.name === "origin") filters.chosen = true;
    onChange(event.target.type === "search" || event.target.type === "number");
  }
  return [
    h("label", {}, "Search", h("input", { type: "search", name: "text", id: "search", value: filters.text, placeholder: "prompt, completion, explanation", oninput: take })),
    overview.runs.length > 1 && select("run", "Run", [["", "all"], ...overview.runs.map((run, i) => [String(i), run.name])]),
    select("origin", "From", origins.map((origin) => [origin, origin === "training" ? "training" : `held-out: ${origin}`])),
    numbers("from", "Steps", "first"), numbers("to", "to", "last"),
    select("source", "Source", [["", "all"], ...values((block) => block.sources).map((one) => [one, one])]),
    rewards.length > 1 && select("reward", "Reward", [["", "any"], ...rewards.map((one) => [one, one])]),
    select("status", "Verdict", [["", "any"], ...statuses.map((one) => [one, one])]),
    numbers("above", "Tokens", "least"), numbers("length", "to", "most"),
    select("only", "Only", Object.entries(ONLY)),
    select("order", "Order", Object.entries(ORDERS)),
    select("shade", "Colour tokens by", Object.entries(SHADES).map(([name, { label }]) => [name, label])),
    h("button", { type: "reset", onclick: (event) => { event.preventDefault(); Object.assign(filters, FILTERS); onChange(false, true); } }, "Clear"),
  ].filter(Boolean);
}

function passes(block, i, filters) {
  if (filters.above !== "" && block.length[i] < Number(filters.above)) return false;
  if (filters.length !== "" && block.length[i] > Number(filters.length)) return false;
  if (filters.only === "cut" && !block.cut[i]) return false;
  if (filters.only === "tokens" && !block.tokens[i]) return false;
  if (filters.only === "unused" && block.used[i]) return false;
  if (filters.status === "") return filters.reward === "" || block.verdicts[filters.reward]?.[i] != null;
  const names = filters.reward === "" ? Object.keys(block.verdicts) : [filters.reward];
  return names.some((name) => block.verdicts[name]?.[i] === filters.status);
}

// The groups with a sample that passes, without looking at texts: {block, group, first, size, matching}.
function filtered(blocks, filters) {
  const found = [];
  for (const block of blocks) {
    if (filters.run !== "" && block.run !== Number(filters.run)) continue;
    if (block.origin !== filters.origin) continue;
    if (filters.from !== "" && block.step < Number(filters.from)) continue;
    if (filters.to !== "" && block.step > Number(filters.to)) continue;
    let first = 0;
    block.groups.forEach((size, group) => {
      const matching = [];
      if (filters.source === "" || block.sources[group] === filters.source) {
        for (let i = first; i < first + size; i++) if (passes(block, i, filters)) matching.push(i);
      }
      if (matching.length) found.push({ block, group, first, size, matching });
      first += size;
    });
  }
  return ordered(found, filters.order);
}

function ordered(found, order) {
  const rewards = ({ block, first, size }) => block.reward.slice(first, first + size).filter((x) => x !== null);
  const mean = (one) => { const own = rewards(one); return own.length ? own.reduce((a, b) => a + b, 0) / own.length : NaN; };
  const keys = {
    new: (one) => -one.block.step, old: (one) => one.block.step, low: mean, high: (one) => -mean(one),
    spread: (one) => { const own = rewards(one); return own.length ? least(own) - most(own) : 0; },
    long: (one) => -most(one.block.length.slice(one.first, one.first + one.size)),
  };
  const keyed = found.map((one) => [Number.isNaN(keys[order](one)) ? Infinity : keys[order](one), one]);
  return keyed.sort((a, b) => a[0] - b[0]).map(([, one]) => one);
}

// Of these groups those whose texts hold `text`; samples without it stop matching, unless the prompt has it.
async function searched(groups, text, isStale, onProgress) {
  const wanted = text.toLowerCase();
  const has = (one) => typeof one === "string" && one.toLowerCase().includes(wanted);
  const byBlock = new Map();
  for (const one of groups) byBlock.set(one.block, [...(byBlock.get(one.block) || []), one]);
  const kept = new Set();
  let done = 0;
  for (const [block, members] of byBlock) {
    const texts = await part(`${block.name}-texts`);
    if (isStale()) return null;
    for (const one of members) {
      if (!has(texts.prompts[one.group]) && !has(texts.ids[one.group])) {
        one.matching = one.matching.filter((i) => has(texts.completions[i]) || Object.values(texts.details).some((list) => has(list[i])));
      }
      if (one.matching.length) kept.add(one);
    }
    onProgress(++done / byBlock.size);
  }
  return groups.filter((one) => kept.has(one));
}
