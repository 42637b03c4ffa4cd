"""What a study found: who counts, the preference table, the ratings, and every answer as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import binomtest, t

from orchestrator.studying.answers import Answer
from orchestrator.studying.plan import NOISE, NOISE_RATING, PASSED, REAL, STILL_OF, Study

LEVEL = 0.95  # of every interval
HEAD = "study,rater,position,check,first,second,first_clip,second_clip,chosen,answered_at"


@dataclass(frozen=True, kw_only=True)
class Share:
    """`part` of `whole` answers. low, high: Wilson's interval. p: exact, two-sided, against 1/2."""

    part: int
    whole: int
    low: float
    high: float
    p: float

    @property
    def value(self) -> float:
        """part / whole."""
        return self.part / self.whole


@dataclass(frozen=True, kw_only=True)
class Rater:
    """One rater's conduct. median_s: between two answers; None with fewer than two."""

    code: str
    answers: int
    checks: int
    passed: int
    first: int
    median_s: float | None

    def counts(self, study: Study) -> bool:
        """Whether the tables count this rater: the rule of `RULE`."""
        if study.checks == 0:
            return self.answers > 0
        return self.checks > 0 and self.passed >= PASSED * self.checks


RULE = (
    f"counted is who answered at least one attention check and passed at least {PASSED:.0%} of "
    "those answered; passed is a check where noise was not chosen over a real video, or in a "
    f"rating had at most {NOISE_RATING}"
)


@dataclass(frozen=True, kw_only=True)
class Preference:
    """How often `better` was preferred over `worse`: a row of VGAN's table 1.

    counted: by the raters that count; everyone: by all; None without an answer. for_, against,
    tied: raters that count who preferred it more often than not, less often, equally often.
    by_rater: of the raters that are not tied, those for it.
    """

    better: str
    worse: str
    counted: Share | None
    everyone: Share | None
    tied: int
    by_rater: Share | None


@dataclass(frozen=True, kw_only=True)
class Rating:
    """The scores of one source: a cell of Sync-DRAW's tables 2 and 3.

    mean, sd: over the answers that count, as the paper's. low, high: of the mean over raters, by
    Student's t, since answers of one rater go together; None with one rater.
    """

    label: str
    answers: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it. first: how often the first of a pair was chosen, checks left out."""

    study: Study
    raters: tuple[Rater, ...]
    preferences: tuple[Preference, ...]
    ratings: tuple[Rating, ...]
    first: Share | None

    @property
    def excluded(self) -> list[Rater]:
        """Those who do not count, and answered something."""
        return [r for r in self.raters if r.answers and not r.counts(self.study)]


def share(part: int, whole: int) -> Share | None:
    """The share with its interval and test; None of nothing."""
    if whole == 0:
        return None
    test = binomtest(part, whole)
    interval = test.proportion_ci(LEVEL, "wilson")
    return Share(
        part=part, whole=whole, low=float(interval.low), high=float(interval.high), p=test.pvalue
    )


def report(study: Study, answers: Sequence[Answer]) -> Report:
    """The report on these answers, sorted by rater and position."""
    by_rater = {code: list(own) for code, own in groupby(answers, lambda answer: answer.rater)}
    raters = tuple(_conduct(code, own) for code, own in by_rater.items())
    counting = {rater.code for rater in raters if rater.counts(study)}
    judged = [answer for answer in answers if not answer.is_check]
    counted = [answer for answer in judged if answer.rater in counting]
    labels = [source.label for source in study.sources]
    return Report(
        study=study,
        raters=raters,
        preferences=tuple(
            _preference(labels[a], labels[b], counted, judged) for a, b in study.comparisons
        ),
        ratings=tuple(_rating(label, counted) for label in labels)
        if study.mode == "rating"
        else (),
        first=share(sum(answer.value == 0 for answer in counted), len(counted))
        if study.mode == "pairs"
        else None,
    )


def by_run(report: Report) -> dict[str, dict[str, float]]:
    """What the counting raters thought of each run, as MLflow's metrics.

    val/rating: the mean score. val/preferred_over_<other>: the share of trials, of every other
    source that it met; "real" keeps its name, other runs go by theirs.
    """
    runs = [source.label for source in report.study.sources if _is_run(source.label)]
    out: dict[str, dict[str, float]] = {run: {} for run in runs}
    for each in report.preferences:
        if each.counted is None:
            continue
        for run, other, share_of_run in (
            (each.better, each.worse, each.counted.value),
            (each.worse, each.better, 1 - each.counted.value),
        ):
            if run in out:
                out[run][f"val/preferred_over_{other.replace(' ', '_')}"] = share_of_run
    for rating in report.ratings:
        if rating.label in out and rating.mean is not None:
            out[rating.label]["val/rating"] = rating.mean
    return out


def _is_run(label: str) -> bool:
    return label != REAL and not label.startswith(STILL_OF)


def _conduct(code: str, own: list[Answer]) -> Rater:
    checks = [answer for answer in own if answer.is_check]
    times = [datetime.fromisoformat(answer.answered_at) for answer in own]
    pauses = [(after - before).total_seconds() for before, after in pairwise(times)]
    return Rater(
        code=code,
        answers=len(own),
        checks=len(checks),
        passed=sum(_passes(answer) for answer in checks),
        first=sum(answer.value == 0 and not answer.is_check for answer in own),
        median_s=median(pauses) if pauses else None,
    )


def _passes(check: Answer) -> bool:
    if len(check.sources) == 1:
        return check.value <= NOISE_RATING
    return check.sources[check.value] != NOISE


def _preference(
    better: str, worse: str, counted: list[Answer], everyone: list[Answer]
) -> Preference:
    def chosen(answers: Iterable[Answer]) -> list[bool]:
        return [
            answer.sources[answer.value] == better
            for answer in answers
            if set(answer.sources) == {better, worse}
        ]

    groups = groupby(counted, lambda answer: answer.rater)
    shares = [mean(given) for _, own in groups if (given := chosen(own))]
    for_, against = sum(s > 0.5 for s in shares), sum(s < 0.5 for s in shares)
    ours, theirs = chosen(counted), chosen(everyone)
    return Preference(
        better=better,
        worse=worse,
        counted=share(sum(ours), len(ours)),
        everyone=share(sum(theirs), len(theirs)),
        tied=len(shares) - for_ - against,
        by_rater=share(for_, for_ + against),
    )


def _rating(label: str, counted: list[Answer]) -> Rating:
    own = [answer for answer in counted if answer.sources == (label,)]
    values = [answer.value for answer in own]
    means = [mean(a.value for a in given) for _, given in groupby(own, lambda a: a.rater)]
    half = None
    if len(means) > 1:
        half = float(t.ppf((1 + LEVEL) / 2, len(means) - 1)) * stdev(means) / len(means) ** 0.5
    return Rating(
        label=label,
        answers=len(values),
        mean=mean(values) if values else None,
        sd=stdev(values) if len(values) > 1 else None,
        low=None if half is None else mean(means) - half,
        high=None if half is None else mean(means) + half,
    )


def to_csv(study: Study, answers: Iterable[Answer]) -> str:
    """One line an answer, with a header; `chosen` is a source, or a rating."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD.split(","))
    for answer in answers:
        pair = len(answer.sources) == 2
        writer.writerow(
            [
                study.id,
                answer.rater,
                answer.position,
                int(answer.is_check),
                *_padded(answer.sources),
                *_padded(answer.clips),
                answer.sources[answer.value] if pair else answer.value,
                answer.answered_at,
            ]
        )
    return out.getvalue()


def _padded(both: tuple[str, ...]) -> Sequence[Any]:
    return [*both, ""][:2]
