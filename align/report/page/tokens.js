// A completion token by token, coloured by a number; the arrow keys go through the tokens and say all numbers.
const SHADES = {
  none: { label: "nothing" },
  difference: { label: "sampler - trainer", unit: "nats", diverging: true, help: "log-prob of the sampler less the trainer's" },
  entropy: { label: "entropy", unit: "nats", help: "of the trainer's distribution" },
  advantage: { label: "advantage", diverging: true },
  surprise: { label: "-log-prob", unit: "nats", help: "of the sampler" },
};

// The tokens of `size` samples, from the place `first` on: numbers are stored as whole multiples of a unit.
function tokenRecords(stored, first, size) {
  const scaled = (name, i) => stored[name][i].map((x) => (x === null ? null : x * stored.units[name]));
  return Array.from({ length: size }, (_, k) => {
    const i = first + k;
    if (stored.text[i] === null) return null;
    return { text: stored.text[i], ...Object.fromEntries(Object.keys(stored.units).map((name) => [name, scaled(name, i)])) };
  });
}

function shadeValues(record, shade) {
  return shade === "surprise" ? record.logprob.map((x) => (x === null ? null : -x)) : record[shade];
}

// The value that is coloured fully: the largest of the group, leaving out the top one in a hundred.
function shadeScale(records, shade) {
  const sizes = records.filter(Boolean).flatMap((record) => shadeValues(record, shade)).filter((x) => x !== null).map(Math.abs).sort((a, b) => a - b);
  return sizes.length ? sizes[Math.floor(0.99 * (sizes.length - 1))] || sizes[sizes.length - 1] : 0;
}

function shadeColour(value, scale, diverging) {
  if (value === null || !scale) return "";
  const strength = Math.min(1, Math.abs(value) / scale) ;
  return `rgba(var(${!diverging ? "--heat" : value > 0 ? "--plus" : "--minus"}),calc(var(--strength)*${strength.toFixed(3)}))`;
}

function tokenText(record, shade, scale) {
  const values = shadeValues(record, shade);
  const said = h("div", { class: "token-said", "aria-live": "polite" });
  const spans = record.text.map((text, i) => h("span", {
    style: `background:${shadeColour(values[i], scale, SHADES[shade].diverging)}`, class: /^<[^\s<>]+>$/.test(text) ? "special" : null,
  }, text));
  let place = -1;
  const show = (index) => {
    if (place >= 0) spans[place].classList.remove("here");
    place = Math.max(0, Math.min(spans.length - 1, index));
    spans[place].classList.add("here");
    const facts = [["log-prob", record.logprob], ["difference", record.difference], ["entropy", record.entropy], ["advantage", record.advantage]];
    said.textContent = `${place + 1}/${spans.length} ${JSON.stringify(record.text[place])} ${facts.map(([name, list]) => `${name} ${number(list[place], 3)}`).join(", ")}`;
  };
  const box = h("div", {
    class: "text tokens", tabindex: 0, role: "group", "aria-label": "Completion by tokens; the arrow keys read their numbers",
    onkeydown: (event) => {
      const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: spans.length - 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key]);
    },
    onpointerover: (event) => {
      const index = spans.indexOf(event.target);
      if (index >= 0) show(index);
    },
  }, spans);
  return h("div", {}, box, said);
}

function shadeLegend(shade, scale) {
  const { unit = "", diverging, help = "" } = SHADES[shade];
  const end = (sign) => `rgba(var(${!diverging ? "--heat" : sign > 0 ? "--plus" : "--minus"}),var(--strength))`;
  const from = diverging ? `linear-gradient(90deg,${end(-1)},transparent,${end(1)})` : `linear-gradient(90deg,transparent,${end(1)})`;
  return h("p", { class: "quiet" }, `${diverging ? number(-scale, 2) : "0"} `, h("span", { class: "ramp", style: `background:${from}` }), ` ${number(scale, 2)} ${unit} ${help && `(${help})`}`);
}
