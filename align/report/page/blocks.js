// The parts of the data: gzipped JSON, in this page or at the server that it came from. Opened when they are needed.
const LIVE = document.documentElement.dataset.live === "true";
const MOST_OPEN = 48; // parts that stay in memory
const opened = new Map();

function part(name) {
  if (opened.has(name)) {
    const kept = opened.get(name);
    opened.delete(name); // to the end: the one that was used longest ago goes first
    opened.set(name, kept);
    return kept;
  }
  const found = readPart(name);
  opened.set(name, found);
  found.catch(() => opened.delete(name));
  if (opened.size > MOST_OPEN) opened.delete(opened.keys().next().value);
  return found;
}

async function readPart(name) {
  const bytes = LIVE ? await fetched(name) : embedded(name);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function fetched(name) {
  const answer = await fetch(encodeURIComponent(name));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.arrayBuffer();
}

function embedded(name) {
  const text = document.getElementById(`part-${name}`).textContent;
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
