"""A study's report as text, and several studies side by side as VGAN's table 1."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from string import ascii_uppercase

from orchestrator.studying.plan import REAL, STILL_OF, Study
from orchestrator.studying.report import RULE, Preference, Rating, Report, Share


def as_text(report: Report) -> str:
    """The whole report of one study."""
    study = report.study
    answers = sum(rater.answers for rater in report.raters)
    title = f"study {study.id}: {study.mode}, {len(report.raters)} raters, {answers} answers"
    body = _preferences(report) if study.mode == "pairs" else _ratings(report.ratings)
    return "\n".join([title, "", *body, "", *_raters(report)])


def side_by_side(reports: Sequence[Report]) -> str:
    """The preferences of several pairs studies, a column each, and their mean.

    Rows go by place: the first run of every study is A. Raises ValueError for a rating, and for
    studies that do not compare alike.
    """
    rows = {report.study.comparisons for report in reports}
    if len(rows) > 1 or any(report.study.mode != "pairs" for report in reports):
        raise ValueError("these studies cannot stand side by side: they do not compare alike")
    letters = _letters(reports[0].study)
    head = ["% of trials", *(report.study.id for report in reports), "mean"]
    lines = []
    for row, (a, b) in enumerate(reports[0].study.comparisons):
        shares = [report.preferences[row].counted for report in reports]
        known = [100 * share.value for share in shares if share is not None]
        cells = ["-" if share is None else f"{100 * share.value:.0f}" for share in shares]
        average = f"{mean(known):.0f}" if len(known) == len(shares) else "-"
        lines.append([f"{letters[a]} over {letters[b]}", *cells, average])
    key = [
        f"{report.study.id}: "
        + ", ".join(
            f"{letter} = {source.label}"
            for letter, source in zip(letters, report.study.sources, strict=True)
            if letter in ascii_uppercase
        )
        for report in reports
    ]
    return "\n".join([*_table([head, *lines]), "", *key, "", f"Rule: {RULE}."])


def _letters(study: Study) -> list[str]:
    """A, B ... for runs, `real`, and `still of A`, in the order of the sources."""
    by_label = {REAL: REAL}
    for source in study.sources:
        run = source.label.removeprefix(STILL_OF)
        letter = by_label.setdefault(run, ascii_uppercase[len(by_label) - 1])
        by_label[source.label] = letter if run == source.label else STILL_OF + letter
    return [by_label[source.label] for source in study.sources]


def _preferences(report: Report) -> list[str]:
    head = ["preferred", "over", "% of trials", "95 % interval", "p", "answers"]
    rows = [[*head, "all raters: %", "raters for:against:tied", "p by rater"]]
    for row in report.preferences:
        rows.append([row.better, row.worse, *_share(row.counted), *_others(row)])
    lines = ['"Which video is more realistic?"', *_table(rows)]
    if report.first is not None:
        first = report.first
        lines += [
            "",
            f"The first of two (left, or above) was chosen in {100 * first.value:.1f} % of "
            f"{first.whole} trials ({100 * first.low:.1f} to {100 * first.high:.1f}, "
            f"p = {_p(first)}). Each clip's side is balanced in every rater's trials.",
            "Ties cannot be answered. p is the exact two-sided binomial test against one half, "
            "as if all answers were independent; by rater, each rater is one vote.",
        ]
    return lines


def _share(share: Share | None) -> list[str]:
    if share is None:
        return ["-", "-", "-", "0"]
    interval = f"{100 * share.low:.1f} to {100 * share.high:.1f}"
    return [f"{100 * share.value:.1f}", interval, _p(share), str(share.whole)]


def _others(row: Preference) -> list[str]:
    for_, against = (row.by_rater.part, row.by_rater.whole) if row.by_rater else (0, 0)
    return [
        "-" if row.everyone is None else f"{100 * row.everyone.value:.1f}",
        f"{for_}:{against - for_}:{row.tied}",
        "-" if row.by_rater is None else _p(row.by_rater),
    ]


def _p(share: Share) -> str:
    return "< 0.0001" if share.p < 0.0001 else f"{share.p:.4f}"


def _ratings(ratings: Sequence[Rating]) -> list[str]:
    rows = [["rated 1 to 10", "mean", "sd", "95 % interval of the mean", "answers"]]
    for rating in ratings:
        interval = "-"
        if rating.low is not None and rating.high is not None:
            interval = f"{rating.low:.2f} to {rating.high:.2f}"
        mean_sd = ["-" if x is None else f"{x:.2f}" for x in (rating.mean, rating.sd)]
        rows.append([rating.label, *mean_sd, interval, str(rating.answers)])
    return [*_table(rows), "", "The interval is over the raters' own means."]


def _raters(report: Report) -> list[str]:
    head = ["rater", "answers", "checks passed", "first chosen", "median s", "counted"]
    rows = [head]
    pairs = report.study.mode == "pairs"
    for rater in report.raters:
        judged = rater.answers - rater.checks
        rows.append(
            [
                rater.code,
                f"{rater.answers} of {report.study.length}",
                f"{rater.passed} of {rater.checks}",
                f"{100 * rater.first / judged:.0f} %" if pairs and judged else "-",
                "-" if rater.median_s is None else f"{rater.median_s:.1f}",
                "yes" if rater.counts(report.study) else "NO",
            ]
        )
    excluded = len(report.excluded)
    return [*_table(rows), "", f"{excluded} of {len(report.raters)} excluded. Rule: {RULE}."]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned, the first to the left; a line under the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
