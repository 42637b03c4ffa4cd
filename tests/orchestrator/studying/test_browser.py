"""Two people in a real browser: no answer is lost or doubled, and what they saw is what is kept."""

import csv
import io
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from orchestrator.study import main
from orchestrator.studying.plan import CHECK, NOISE, REAL
from tests.orchestrator.studying.cases import ONE, TWO, make_study, serving, study_value
from tests.orchestrator.webdriver import Browser, chromedriver, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
DARK_TO_BRIGHT = [ONE, TWO, REAL, CHECK, NOISE]  # as `make_study` paints them
LEFT, RIGHT = "\ue012", "\ue014"

# What a person sees once the question can be answered: the place, and how bright each clip is.
SEEN = """return new Promise((done) => {
  const look = () => {
    const { view } = document.body.dataset;
    if (view === "end") done({ code: document.querySelector("#code").textContent });
    else if (document.body.hasAttribute("data-busy")) setTimeout(look, 5);
    else done({
      place: document.querySelector("#place").textContent,
      bright: [...document.querySelectorAll(`#${view} canvas`)].map(
        (canvas) => canvas.getContext("2d").getImageData(9, 9, 1, 1).data[0]),
    });
  };
  look();
})"""


INTRO = """return new Promise((done) => {
  const look = () => document.body.dataset.view === "intro" ? done() : setTimeout(look, 5);
  look();
})"""


@pytest.fixture(scope="module")
def driver():
    with chromedriver() as address:
        yield address


@contextmanager
def served_by_command(folder, study):
    """(waits for the page, the open study), as a user starts it; Ctrl-C ends it."""
    answers = make_study(folder / study.id, study)
    call = [sys.executable, "-m", "orchestrator.study", "--study", study.id]
    process = subprocess.Popen(
        [*call, "--folder", str(folder), "--port", "0"], stdout=subprocess.PIPE, text=True
    )

    def page():
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "Ctrl-C ends it; nothing is lost.\n")
        return re.search(r"http://\S+", "".join(lines))[0]

    try:
        yield page, answers
    finally:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "stopped\n"
        answers.close()
    assert process.returncode == 0


@contextmanager
def browsing(driver):
    browser = Browser(driver, 700, 560)
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def browser(driver):
    """One browser for the tests that need no profile of their own: a study has its own address."""
    with browsing(driver) as one:
        yield one


@contextmanager
def begun(browser, folder, study):
    """The open study, served, with its first question in the browser."""
    with serving(folder, study) as (answers, port):
        begin(browser, f"http://127.0.0.1:{port}/{answers.token}/")
        browser.run(SEEN)
        yield answers


def begin(browser, page):
    browser.open(page)
    browser.run(INTRO)
    browser.click("#start")


def rate(driver, page, brighter, hand):
    """Answers everything by brightness; (code, the side chosen by place, places seen in order)."""
    with browsing(driver) as browser:
        begin(browser, page.result())
        chosen, places = {}, []
        while "code" not in (seen := browser.run(SEEN)):
            place, of = map(int, seen["place"].split(" of "))
            assert of == 40
            one, two = seen["bright"]
            assert one != two
            chosen[place - 1] = int((two > one) == brighter)
            places.append(place)
            hand(browser, chosen[place - 1])
            if len(places) == 17:
                browser.reload()  # at once: the answer may be on its way, there, or not sent
        before = browser.run("return document.querySelector('#code').textContent")
        browser.reload()
        assert browser.run(SEEN)["code"] == before == seen["code"]
        assert browser.complaints() == []
    return seen["code"], chosen, places


def click(browser, side):
    browser.click(f".choice[data-value='{side}']")


def press(browser, side):
    browser.press((LEFT, RIGHT)[side])


def test_two_raters_at_once_with_a_reload_leave_40_answers_each(driver, tmp_path):
    study = study_value(trials=36, checks=4, clips=40)
    with served_by_command(tmp_path, study) as (wait, answers), ThreadPoolExecutor(3) as pool:
        page = pool.submit(wait)
        jobs = [
            pool.submit(rate, driver, page, brighter, hand)
            for brighter, hand in ((True, click), (False, press))
        ]
        raters = [job.result() for job in jobs]
        stored = answers.all()
    table = tmp_path / "answers.csv"
    name = study.id
    assert main(["--study", name, "--folder", str(tmp_path), "--export", str(table)]) == 0
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == len(stored) == 80
    assert {row["rater"] for row in rows} == {code for code, _, _ in raters}
    for (code, chosen, places), brighter in zip(raters, (True, False), strict=True):
        assert places in (sorted({*places}), sorted([*{*places}, 17]))  # once, but for the reload
        own = [answer for answer in stored if answer.rater == code]
        assert {answer.position: answer.value for answer in own} == chosen
        assert sorted(chosen) == list(range(40))
        for row in (row for row in rows if row["rater"] == code):
            pick = max if brighter else min
            assert row["chosen"] == pick(row["first"], row["second"], key=DARK_TO_BRIGHT.index)


def test_rating_by_keys_and_clicks_is_kept_as_given(browser, tmp_path):
    study = study_value("rating", trials=9, checks=1)
    with begun(browser, tmp_path / "study", study) as answers:
        for rating in range(1, 11):
            assert browser.run(SEEN)["place"] == f"{rating} of 10"
            if rating % 2:
                browser.press(str(rating))
            else:
                browser.click(f".scale button[data-value='{rating}']")
        assert "code" in browser.run(SEEN)
        assert [answer.value for answer in answers.all()] == list(range(1, 11))


def test_second_window_of_a_rater_goes_on_where_the_first_is(browser, tmp_path):
    study = study_value(trials=4, checks=0)
    with begun(browser, tmp_path / "study", study) as answers:
        assert browser.run(SEEN)["place"] == "1 of 4"
        key = browser.run("return localStorage.getItem(`rater of ${location.pathname}`)")
        rater = answers.rater(key)
        for position in range(2):
            answers.answer(rater, position, 0)
        click(browser, 1)  # to a question that has been answered: it is not shown again
        assert browser.run(SEEN)["place"] == "3 of 4"
        assert [answer.value for answer in answers.all()] == [0, 0]
        assert any("409" in complaint for complaint in browser.complaints())


def test_clips_play_in_step_and_stop_when_told(browser, tmp_path):
    """Frame n % 4 of clip n is brighter than its others, which shows when it is drawn."""
    watch = """return new Promise((done) => {
      const seen = new Set(), until = performance.now() + 1000;
      const look = () => {
        for (const canvas of document.querySelectorAll("#pairs canvas"))
          seen.add(canvas.getContext("2d").getImageData(9, 9, 1, 1).data[0]);
        if (performance.now() < until) requestAnimationFrame(look); else done([...seen]);
      };
      look();
    })"""
    study = study_value(trials=4, checks=0)
    with begun(browser, tmp_path / "study", study):
        assert len(browser.run(watch)) == 4  # two clips, each in two shades
        browser.press("p")
        assert len(browser.run(watch)) == 2
        browser.click("#pause")
        assert len(browser.run(watch)) == 4


def test_keys_held_down_and_double_clicks_answer_one_question(browser, tmp_path):
    study = study_value(trials=6, checks=0)
    with begun(browser, tmp_path / "study", study) as answers:
        browser.run(SEEN)
        browser.run(
            "document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', repeat: true}))"
        )
        assert browser.run(SEEN)["place"] == "1 of 6"
        browser.click_twice(".choice")
        assert browser.run(SEEN)["place"] == "2 of 6"
        assert len(answers.all()) == 1
        browser.run(
            "for (const key of '121') document.dispatchEvent(new KeyboardEvent('keydown', {key}))"
        )
        assert browser.run(SEEN)["place"] == "3 of 6"
        assert [answer.value for answer in answers.all()] == [0, 0]
        assert browser.complaints() == []  # no second answer was sent, to be refused
