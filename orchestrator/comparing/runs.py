"""What MLflow holds of runs, beside each other: HTML, Markdown, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.archive import locate
from orchestrator.comparing.comparison import Comparison, Mode, compared
from orchestrator.comparing.curves import MetricCurves, column_width, metric_curves
from orchestrator.comparing.histories import Found, Histories
from orchestrator.comparing.page import Card, Told, page
from orchestrator.comparing.text import headline, markdown, plain
from orchestrator.comparing.thumbnails import clips_of_grid, thumbnail
from orchestrator.site import Site

PAGE_BYTES, CARDS_BYTES = 4_800_000, 1_600_000  # at most
MOST_CARDS = 24
FEW_CARDS = 8  # have 8 clips each, more have 4
_MOST_CURVES, _MOST_METRICS = 2000, 8


@dataclass(frozen=True, kw_only=True)
class Written:
    """What there is now. said: for a terminal. plain: JSON-able."""

    paths: tuple[Path, ...]
    said: str
    plain: dict[str, object]


def find(texts: Sequence[str], site: Site, histories: Histories) -> Found:
    """The runs that a user means: names, MLflow ids, sweeps, or paths of runs' folders."""
    names = [
        locate(text, site).name if "/" in text or text.startswith((".", "~")) else text
        for text in texts
    ]
    return histories.find(names)


def compare(
    found: Found, histories: Histories, out: Path, *, metric: str | None, mode: Mode | None
) -> Written:
    """Writes <name>.html, .md and .json below `out`.

    Raises ValueError saying what is wrong, OSError when MLflow does not answer.
    """
    comparison = compared(found.runs, found.sweep, metric=metric, mode=mode)
    curves = _curves(comparison, histories)
    name = _name(found)
    told = Told(
        title=f"{name} compared",
        sentences=_of_sweep(found),
        gallery_note="",
        method=_method(comparison, curves),
    )
    room = 0.73 * (PAGE_BYTES - len(page(comparison, curves, [], told)))  # as base64
    cards, note, missing = _cards(comparison, histories, min(CARDS_BYTES, int(room)))
    told = replace(told, gallery_note=note, method=[*told.method, *missing])
    data = plain(comparison) | {
        "sweep": None if found.sweep is None else found.sweep.name,
        "cost": {} if found.sweep is None else _cost(found),
        "curves": [_plain_curves(each, comparison) for each in curves],
    }
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "html": page(comparison, curves, cards, told),
        "md": markdown(comparison),
        "json": json.dumps(data, allow_nan=False),
    }
    paths = tuple(out / f"{name}.{ending}" for ending in texts)
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    said = "\n".join([*headline(comparison), *_of_sweep(found)])
    return Written(paths=paths, said=said, plain=data)


def _name(found: Found) -> str:
    if found.sweep is not None:
        return found.sweep.name
    first, *others = (run.name for run in found.runs)
    return f"{first}-and-{len(others)}-more" if others else first


def _cost(found: Found) -> dict[str, float]:
    assert found.sweep is not None
    told = found.sweep.metrics.items()
    return {name.removeprefix("cost/"): v for name, v in told if name.startswith("cost/")}


def _of_sweep(found: Found) -> list[str]:
    if found.sweep is None:
        return []
    states = {"RUNNING": "is running", "FINISHED": "has finished"}
    state = states.get(found.sweep.status, f"is {found.sweep.status.lower()}")
    cost = ", ".join(f"{v:.3g} {name.replace('_', ' ')}" for name, v in _cost(found).items())
    return [f"The sweep {found.sweep.name} {state}{f'; it cost {cost}' if cost else ''}."]


def _curves(comparison: Comparison, histories: Histories) -> list[MetricCurves]:
    """Of the metric and of what training told, as many as a page can hold."""
    runs = comparison.runs
    named = [name for name in comparison.metrics if name.split("/")[0] in ("train", "val")]
    names = list(dict.fromkeys([comparison.metric, *sorted(named, key=lambda n: n[:3] == "val")]))
    names = names[: max(1, min(_MOST_METRICS, _MOST_CURVES // len(runs)))]
    places = {run.id: place for place, run in enumerate(runs)}
    members = [each.members for each in comparison.configurations]
    out = []
    for name in names:
        last = max((run.steps.get(name, 0) for run in runs), default=0)
        width, coarse = column_width(last, len(names) * len(runs))
        columns = {places[i]: each for i, each in histories.columns(runs, name, width)}
        if any(len(each.first) > 1 for each in columns.values()):
            ordered = dict(sorted(columns.items()))
            out.append(metric_curves(name, ordered, width, coarse, members))
    return out


def _cards(
    comparison: Comparison, histories: Histories, most_bytes: int
) -> tuple[list[Card], str, list[str]]:
    """(cards, which runs they are of, what could not be read): the best run of each configuration,
    the best configuration first, then their other runs."""
    order = _best_first(comparison)
    chosen = order[:MOST_CARDS]
    size = {
        "count": 8 if len(chosen) <= FEW_CARDS else 4,
        "most_bytes": most_bytes // (len(chosen) + 1),
    }
    cards, unread = [], []
    for place in chosen:
        try:
            found = histories.samples(comparison.runs[place])
            if found is not None:
                small = thumbnail(clips_of_grid(found[1]), **size)
                cards.append(Card(run=place, step=found[0], thumbnail=small))
        except (OSError, ValueError) as error:
            unread.append(f"{comparison.runs[place].name}: {error}")
    if cards and len({run.params.get("data.name") for run in comparison.runs}) == 1:
        real = _real(comparison, histories, [card.run for card in cards], size)
        cards = [*([real] if real else []), *cards]
    note = "" if len(order) == len(chosen) else f"of the {len(chosen)} best of {len(order)} runs"
    missing = (
        [f"The samples of {len(unread)} runs could not be read ({unread[0]})"] if unread else []
    )
    return cards, note, missing


def _real(
    comparison: Comparison,
    histories: Histories,
    places: Sequence[int | None],
    size: Mapping[str, int],
) -> Card | None:
    """What the models were shown: from the first run that has it."""
    for place in places[:3]:
        assert place is not None
        try:
            gif = histories.real_clips(comparison.runs[place])
            if gif is not None:
                return Card(run=None, step=0, thumbnail=thumbnail(clips_of_grid(gif), **size))
        except (OSError, ValueError):
            return None  # the samples' own failure is told
    return None


def _best_first(comparison: Comparison) -> list[int]:
    sign = 1 if comparison.mode == "min" else -1
    worst = float("inf")

    def worth(place: int) -> float:
        value = comparison.runs[place].metrics.get(comparison.metric, worst * sign)
        return sign * value if value == value else worst

    groups = [sorted(each.members, key=worth) for each in comparison.configurations]
    groups.sort(key=lambda members: (worth(members[0]), members))
    if comparison.best is not None:
        best = list(comparison.configurations[comparison.best].members)
        groups.sort(key=lambda members: set(members) != set(best))
    deepest = max(map(len, groups))
    return [members[n] for n in range(deepest) for members in groups if n < len(members)]


def _method(comparison: Comparison, curves: Sequence[MetricCurves]) -> list[str]:
    told = [
        f"Everything is from MLflow; the metric is {comparison.metric} ({comparison.why}).",
        "Runs that differ by their seed alone are one configuration: mean +- sample standard "
        "deviation of their last values.",
        "The best configuration has the best mean over finished runs; stopped ones count only "
        "where none has finished.",
        "Samples are those of the last time that the run drew some, of its own fixed noise; they "
        "are shown as lossy WebP. The files in MLflow are whole.",
        "Hours are from a run's start to its end, whatever it waited for.",
    ]
    if any(each.coarse and not each.exact for each in curves):
        told.append(
            "There are so many curves that they go through the means of intervals of steps, and "
            "through the extremes that stand out."
        )
    elif not all(each.exact for each in curves):
        told.append("Curves go through the least and greatest value of every interval of steps.")
    if not all(each.exact for each in curves):
        told.append("A server's histories of more than 2,500 points are evenly thinned to those.")
    return told


def _plain_curves(each: MetricCurves, comparison: Comparison) -> dict[str, object]:
    curves = {
        comparison.runs[place].name: {
            "steps": [int(step) for step in path.steps],
            "values": [float(f"{value:.7g}") for value in path.values],
        }
        for place, path in each.paths.items()
    }
    return {"metric": each.metric, "column_steps": each.width, "exact": each.exact, "runs": curves}
