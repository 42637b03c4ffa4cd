"""The page of a comparison in a real browser, opened from a file."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from orchestrator.comparing.comparison import compared
from orchestrator.comparing.curves import column_width, columns_of, metric_curves
from orchestrator.comparing.histories import RunRecord
from orchestrator.comparing.page import Card, Told, page
from orchestrator.comparing.thumbnails import thumbnail
from tests.orchestrator.webdriver import Browser, chromedriver, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
TOLD = Told(title="a test", sentences=["A sentence."], gallery_note="", method=["By hand."])
ROWS = """return [...document.querySelectorAll("tbody tr")].map(
  (row) => [...row.cells].map((cell) => cell.textContent))"""


@pytest.fixture(scope="module")
def browser():
    with chromedriver() as address:
        made = Browser(address, 1400, 1200)
        yield made
        made.close()


def _record(n, params, value, **tags):
    return RunRecord(
        id=f"{n:032x}",
        name=f"run-{n:08x}",
        experiment="vgan<b>",  # what a page must not take for its own
        status="FINISHED",
        params=params,
        tags={"orchestrator.workers": "2"} | tags,
        metrics={"train/loss": value, "goodput/fraction": 0.9},
        steps={"train/loss": 1000},
        seconds=3600.0,
    )


def _made(records, points, *, cards=0):
    comparison = compared(records)
    width, coarse = column_width(10 * points, len(records))
    rng = np.random.default_rng(0)
    steps = 10 * np.arange(1, points + 1)
    noise = rng.normal(0, 0.05, points)
    columns = {
        n: columns_of(steps, noise + record.metrics["train/loss"], width)
        for n, record in enumerate(records)
    }
    members = [each.members for each in comparison.configurations]
    curves = [metric_curves("train/loss", columns, width, coarse, members)]
    clips = rng.integers(0, 255, (4, 8, 16, 16, 3), np.uint8)
    small = thumbnail(clips, count=4, most_bytes=50_000)
    gallery = [Card(run=n, step=7, thumbnail=small) for n in range(cards)]
    return page(comparison, curves, gallery, TOLD)


def _open(browser, tmp_path, html):
    path = tmp_path / "page.html"
    path.write_text(html)
    browser.complaints()
    browser.open(path.as_uri())
    return browser.run("return window.drawn.then(() => 'drawn')")


@pytest.fixture
def small(browser, tmp_path):
    """Three configurations, the second of two seeds, in the browser."""
    values = [("0.5", 0, 3.0), ("10", 0, 1.0), ("10", 1, 2.0), ("9", 0, 7.0)]
    records = [
        _record(n, {"optim.lr": lr, "seed": str(seed), "same": "1"}, value)
        for n, (lr, seed, value) in enumerate(values)
    ]
    assert _open(browser, tmp_path, _made(records, 50, cards=4)) == "drawn"
    return browser


def test_page_opens_without_a_request_or_a_complaint(small):
    assert (
        small.run(
            "return performance.getEntriesByType('resource').map((each) => each.name)"
            ".filter((name) => !name.startsWith('data:'))"
        )
        == []
    )
    assert small.complaints() == []
    assert "vgan<b>" in small.run("return document.querySelector('h1').textContent")
    assert "run-00000001" in small.run("return document.querySelector('#best').textContent")
    refused = small.run("return fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
    assert refused == "refused"
    assert "Content Security Policy" in " ".join(small.complaints())


def test_table_begins_with_the_best_and_sorts_numbers_as_numbers(small):
    rows = small.run(ROWS)
    assert [row[0] for row in rows] == ["2 runs", "run-00000000", "run-00000003"]
    assert rows[0][4] == "1.5 \u00b1 0.71"
    small.click("th:nth-child(3) button")
    assert [row[2] for row in small.run(ROWS)] == ["0.5", "9", "10"]
    small.click("th:nth-child(3) button")
    assert [row[2] for row in small.run(ROWS)] == ["10", "9", "0.5"]
    assert (
        small.run("return document.querySelector('th[aria-sort]').getAttribute('aria-sort')")
        == "descending"
    )
    small.click("#by-run")
    assert len(small.run(ROWS)) == 4
    small.run(
        "const find = document.querySelector('#find'); find.value = '00000002'; find.oninput()"
    )
    assert [row[0] for row in small.run(ROWS)] == ["run-00000002"]


def test_selection_is_one_of_table_curves_and_pictures(small):
    small.click("tbody tr:first-child")
    assert small.run("return charts.linear.runs.selected.indices") == [1, 2]
    chosen = (
        "return [...document.querySelectorAll('figure.chosen')].map((card) => card.dataset.run)"
    )
    assert small.run(chosen) == ["1", "2"]
    small.run("charts.linear.runs.selected.indices = [3]")  # as a click on a curve does
    assert small.run(chosen) == ["3"]
    assert (
        small.run("return document.querySelector('tr.chosen').cells[0].textContent")
        == "run-00000003"
    )
    small.click("#clear")
    assert small.run("return charts.linear.runs.selected.indices") == []


def test_curves_are_what_was_told_and_have_a_band_of_seeds(small):
    drawn = small.run("return charts.linear.runs.data.ys.map((each) => each.length)")
    assert drawn == [50] * 4
    assert small.run("return charts.linear.runs.data.xs[0][49]") == 500
    small.click("#bands")
    assert small.run("return charts.linear.means.data.ys.length") == 1
    low, high = small.run("const y = charts.linear.areas.data.ys[0]; return [y[0], y.at(-1)]")
    assert high - low == pytest.approx(2 * 0.5**0.5, rel=1e-4)  # of values 1 apart, twice the sd
    small.click("#log")
    assert small.run(
        "return new Promise((r) => setTimeout(() => r(Object.keys(charts)), 300))"
    ) == ["linear", "log"]


def test_chart_and_samples_are_painted(small):
    small.run("document.querySelector('#linear-chart').scrollIntoView()")
    shot = np.asarray(Image.open(io.BytesIO(small.screenshot())).convert("RGB")).astype(int)
    colours = ((0, 114, 178), (230, 159, 0), (0, 158, 115))
    assert all((np.abs(shot - colour).sum(-1) < 90).sum() > 200 for colour in colours)
    assert small.run(
        "return [...document.querySelectorAll('figure img')].every((i) => i.naturalWidth > 0)"
    )
    sources = "return [...document.querySelectorAll('figure img')].map((i) => i.src.length)"
    before = small.run(sources)
    small.click("#play")
    assert small.run(sources) != before


def test_page_of_a_thousand_runs_is_small_and_quick(browser, tmp_path):
    rng = np.random.default_rng(0)
    records = [
        _record(
            n,
            {f"model.field{k}": str(k) for k in range(30)}
            | {"optim.lr": str(n // 4), "model.width": str(n // 40), "seed": str(n % 4)},
            float(rng.uniform(1, 2)),
        )
        for n in range(1000)
    ]
    html = _made(records, 10_000)
    assert len(html) < 3.5e6  # leaves room for samples below 5 MB
    assert _open(browser, tmp_path, html) == "drawn"
    spent = browser.run(
        "const t = [performance.now()]; for (const act of ['#by-run', 'th:nth-child(3) button', "
        "'tbody tr:nth-child(5)', '#by-configuration']) { document.querySelector(act).click(); "
        "document.body.offsetHeight; t.push(performance.now()); } "
        "return t.slice(1).map((each, n) => each - t[n])"
    )
    assert len(browser.run(ROWS)) == 250
    assert max(spent) < 2000, json.dumps(spent)  # 60 ms where nothing else runs
