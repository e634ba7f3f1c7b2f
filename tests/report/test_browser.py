"""The page in a real browser: it works from a file, asks the network for nothing, and its filters do what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

import align
from align.report.live import LiveServer, open_server
from align.run.records import append_row
from tests.report.browser import Browser
from tests.report.conftest import MakeRun

FOUND = "document.querySelector('#found').textContent"


def text(browser: Browser, selector: str) -> str:
    return str(browser.run(f"document.querySelector({selector!r}).textContent"))


@pytest.fixture
def page(browser: Browser, report_url: str) -> Iterator[Browser]:
    browser.open(report_url)
    yield browser
    browser.call("Emulation.setEmulatedMedia", media="", features=[])


def test_it_works_from_a_file_without_network_or_complaints(page: Browser) -> None:
    assert [url.partition(":")[0] for url in page.requests()] == ["file"]
    assert page.complaints() == []
    assert text(page, "h1") == "run"
    verdict = text(page, ".verdict")
    assert "The reward rose from" in verdict
    assert "Held-out pass@1 rose beyond its interval: +0.500" in verdict
    assert "step 4: the KL jumped to 7" in text(page, "#alerts")
    assert page.run("document.querySelectorAll('#curves figure').length") >= 5
    assert page.run("[...document.querySelectorAll('#curves path')].every((one) => !/NaN|Infinity/.test(one.getAttribute('d')))")


def test_the_network_is_forbidden_to_the_page(page: Browser) -> None:
    reached = "fetch('http://127.0.0.1:9/').then(() => 'reached', (error) => error.message)"
    assert page.run(reached) != "reached"
    assert "Content Security Policy" in str(page.complaints())


def test_text_of_a_model_stays_text(page: Browser) -> None:
    page.choose("text", "<script>")
    assert text(page, "#found").startswith("3 samples of 2 prompts.")
    page.run("document.querySelector('details.group').open = true")
    page.wait("document.querySelector('.card')")
    assert "<b>no</b><script>" in text(page, ".card .text")
    assert page.run("document.querySelectorAll('.card b, .card script, #alerts i').length") == 0
    assert page.run("document.title") == "run - align report"


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "48 samples of 24 prompts."),
        ({"status": "fail"}, "24 samples of 18 prompts."),
        ({"source": "more", "status": "pass"}, "12 samples of 6 prompts."),
        ({"from": "3", "to": "4"}, "8 samples of 4 prompts."),
        ({"only": "cut", "source": "sums"}, "12 samples of 12 prompts."),
        ({"only": "tokens"}, "8 samples of 4 prompts."),
        ({"above": "4"}, "0 samples of 0 prompts."),
        ({"text": "what is 12+"}, "4 samples of 2 prompts."),
        ({"text": "right is 4"}, "3 samples of 2 prompts."),
        ({"origin": "after"}, "80 samples of 20 prompts."),
        ({"origin": "before", "status": "pass"}, "20 samples of 20 prompts."),
    ],
    ids=str,
)
def test_filters(page: Browser, filters: dict[str, str], found: str) -> None:
    for name, value in filters.items():
        page.choose(name, value)
    page.wait(f"{FOUND} === {found!r}", seconds=5)


def test_samples_of_a_prompt_stand_side_by_side_with_verdicts_and_tokens(page: Browser) -> None:
    page.choose("shade", "entropy")
    page.choose("from", "12")
    page.choose("status", "pass")
    page.run("document.querySelector('details.group').open = true")
    page.wait("document.querySelector('.card')")
    assert page.run("document.querySelectorAll('.card').length") == 1
    page.run("document.querySelector('.body > button').click()")  # the other samples of the prompt
    assert page.run("document.querySelectorAll('.card').length") == 2
    assert page.run("(([a, b]) => a.offsetTop === b.offsetTop)(document.querySelectorAll('.card'))")
    assert "fail task 0: right is 12" in page.run("document.querySelectorAll('.card')[1].textContent")
    backs = page.run(
        "[...document.querySelectorAll('.card .tokens span')].slice(0, 3).map((one) => getComputedStyle(one).backgroundColor)"
    )
    assert backs[1] == "rgba(140, 60, 190, 0.75)"  # the largest entropy of the group
    assert backs[2] == "rgba(140, 60, 190, 0)"
    page.run("document.querySelector('.tokens').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert text(page, ".token-said") == '2/3 " 12" log-prob -1, difference -2e-6, entropy 1.5, advantage 1'


def test_the_keyboard_is_enough(page: Browser) -> None:
    page.press("/")
    assert page.run("document.activeElement.id") == "search"
    page.run("document.activeElement.blur()")
    page.press("n")
    page.press("n")
    assert page.run("[...document.querySelectorAll('details.group > summary')].indexOf(document.activeElement)") == 1
    page.press("p")
    page.press("Enter")
    page.wait("document.querySelector('details.group').open && document.querySelector('.card')")
    page.run("document.querySelector('#curves svg[role=img]').focus()")
    page.press("ArrowLeft")
    readout = "document.querySelector('#curves .readout').textContent"
    assert page.run(readout) == "step 11reward 0.9167"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.run(outline) == "solid"  # where one is can be seen


def test_every_control_has_a_name(page: Browser) -> None:
    nameless = """[...document.querySelectorAll('input, select, button, svg[role=img], [tabindex]')].filter((one) =>
        !(one.closest('label')?.textContent || one.getAttribute('aria-label') || one.textContent).trim())
        .map((one) => one.outerHTML)"""
    assert page.run(nameless) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page: Browser, scheme: str) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    contrast = """(() => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
          const channels = style.getPropertyValue(name).trim().slice(1).match(/../g).map((two) => parseInt(two, 16) / 255);
          const linear = channels.map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
          return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        };
        const pairs = [['--ink', '--paper'], ['--ink', '--panel'], ['--soft', '--panel'], ['--soft', '--paper'],
          ['--focus', '--paper'],
          ...['good', 'bad', 'warning', 'neutral'].map((name) => [`--${name}`, `--${name}-back`])];
        return pairs.map(([a, b]) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05));
    })()"""
    assert min(page.run(contrast)) >= 4.5  # WCAG 2.2, 1.4.3
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_it_prints_on_paper(page: Browser) -> None:
    page.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('#filters')).display") == "none"
    assert len(page.call("Page.printToPDF")["data"]) > 10_000


def test_a_narrow_window_scrolls_in_one_direction_only(page: Browser) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=False)
    try:
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_the_view_of_curves_changes(page: Browser) -> None:
    first = "document.querySelector('#curves svg[role=img] path:last-of-type').getAttribute('d')"
    before = page.run(first)
    page.run("document.querySelector('#log-y').click()")
    assert page.run(first) != before
    page.run("document.querySelector('#log-y').click()")
    assert page.run(first) == before
    page.run("document.querySelector('#over').value = 'elapsed'")
    page.run("document.querySelector('#over').dispatchEvent(new Event('input', {bubbles: true}))")
    assert "minutes" in text(page, "#curves svg[role=img]")
    page.run("document.querySelector('#curves .legend button')?.click()")
    assert page.complaints() == []


def test_several_runs_are_told_apart(browser: Browser, make_run: MakeRun) -> None:
    runs = [make_run("plain"), make_run("fast", "train.learning_rate=1e-3", metrics=lambda step: {"kl": 0.1 * step})]
    browser.open(align.report(runs).path.as_uri())
    assert "train.learning_rate1e-060.001" in text(browser, "#overview table")
    assert [
        one.strip()
        for one in browser.run("[...document.querySelector('#curves .legend').children].map((one) => one.textContent)")
    ] == [
        "plain",
        "fast",
    ]
    browser.choose("run", "1")
    assert text(browser, "#found") == "48 samples of 24 prompts."
    assert browser.complaints() == []


def test_a_run_without_samples_or_steps_has_a_page(browser: Browser, make_run: MakeRun) -> None:
    run = make_run(rollouts=False)
    (run / "metrics.jsonl").unlink()
    for file in (run / "eval").iterdir():
        file.unlink()
    browser.open(align.report(run).path.as_uri())
    assert "No samples have been recorded" in text(browser, "#found")
    assert browser.complaints() == []


@pytest.fixture
def server(make_run: MakeRun) -> Iterator[tuple[LiveServer, Path]]:
    run = make_run()
    with open_server([run]) as one:
        thread = Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield one, run
        one.shutdown()
        thread.join()


def test_the_live_page_follows_a_run(browser: Browser, server: tuple[LiveServer, Path]) -> None:
    live, run = server
    browser.open(live.url)
    assert text(browser, "#found") == "48 samples of 24 prompts."
    append_row(run / "metrics.jsonl", {"step": 13, "reward": 0.25, "num_tokens": 1300})
    (run / "rollouts" / "step-000013.parquet").write_bytes((run / "rollouts" / "step-000012.parquet").read_bytes())
    browser.wait("/13 of 12 steps/.test(document.querySelector('.verdict').textContent)")
    browser.wait(f"{FOUND} === '52 samples of 26 prompts.'")
    assert {url.split("/")[2] for url in browser.requests()} == {f"127.0.0.1:{live.server_port}"}
    assert browser.complaints() == []
