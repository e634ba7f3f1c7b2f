// The page: draw everything, then listen; a live page asks every two seconds whether the runs have something new.
const POLL = 2000;
const view = { smooth: 0, log: false, over: "step" };
let overview, browser;

function takeView() {
  view.smooth = Number($("smooth").value) / 100;
  view.log = $("log-y").checked;
  view.over = $("over").value;
  $("smooth-said").textContent = view.smooth ? `${$("smooth").value} %` : "off";
}

function showAll() {
  showOverview(overview);
  showHeldOut(overview);
  showCurves(overview, view);
}

async function start() {
  overview = await part("overview");
  takeView();
  showAll();
  $("curve-view").addEventListener("input", () => { takeView(); showCurves(overview, view); });
  for (const id of ["curve-view", "filters"]) $(id).addEventListener("submit", (event) => event.preventDefault());
  browser = rolloutBrowser(overview, await part("index"));
  await browser.ready;
  document.documentElement.dataset.ready = "true";
  if (LIVE) poll(await part("state"));
}

async function poll(known) {
  await new Promise((resolve) => setTimeout(resolve, POLL));
  try {
    opened.delete("state");
    const now = await part("state");
    if (now !== known) {
      for (const name of ["overview", "index"]) opened.delete(name);
      overview = await part("overview");
      showAll();
      await browser.update(overview, await part("index"));
    }
    known = now;
  } catch (error) {
    $("written").textContent = "live: the server does not answer; what is shown is what it said last";
  }
  poll(known);
}

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    $("search").focus();
  } else if (event.key === "n" || event.key === "p") {
    const heads = [...document.querySelectorAll("details.group > summary")];
    const at = heads.indexOf(document.activeElement.closest("details.group")?.querySelector("summary"));
    heads[Math.max(0, Math.min(heads.length - 1, at < 0 ? 0 : at + (event.key === "n" ? 1 : -1)))]?.focus();
  }
});

start().catch((error) => { $("written").textContent = `The report cannot be shown: ${error.message}`; console.error(error); });
