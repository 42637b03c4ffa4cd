"""The page's table as JSON-able rows: a run each, and a configuration each.

A cell is a text, a number, [mean, standard deviation or null, n], or null.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex

from orchestrator.comparing.comparison import SEED, Comparison, Configuration
from orchestrator.comparing.histories import RunRecord
from orchestrator.comparing.text import facts, values_text

FEW = 8  # configurations that have a colour of their own; beyond, it tells how good they are
_OWN = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d31", "#444444")
_NARROW = 6  # differing parameters, and metrics, that are shown at first
_FACTS = {
    "goodput": "share of the run's time that went into steps which stand",
    "lost most to": "what took most of the rest",
    "clips/s": "training clips a second, at the end",
    "hours": "from the run's start to its end; of a configuration, of all its runs together",
    "worker hours": "hours times workers",
}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """columns: label, title, text (or numbers), more (not shown at first). main: the place of the
    metric's column. Rows have cells by column."""

    columns: list[Row]
    main: int
    runs: list[Row]
    configurations: list[Row]


def table_of(comparison: Comparison) -> Table:
    """All rows, in the comparison's order."""
    varied = len({run.params.get(SEED) for run in comparison.runs}) > 1
    seeds = [SEED] if varied and len(comparison.configurations) < len(comparison.runs) else []
    columns = _columns(comparison, seeds)
    colours = _colours(comparison)
    runs: dict[int, Row] = {}
    configurations = []
    for n, each in enumerate(comparison.configurations):
        own = [_run_cells(comparison, comparison.runs[place], seeds) for place in each.members]
        says = values_text(dict(list(each.values.items())[:_NARROW]))
        shared = {"colour": colours[n], "says": says}
        names = [comparison.runs[place].name for place in each.members]
        row: Row = {
            **shared,
            "cells": _configuration_cells(comparison, each, own, seeds),
            "members": list(each.members),
            "title": "\n".join(names),
            "best": n == comparison.best,
        }
        configurations.append(row)
        for place, cells in zip(each.members, own, strict=True):
            run = comparison.runs[place]
            value = run.metrics.get(comparison.metric)
            seed = f", seed {run.params.get(SEED)}" if seeds else ""
            runs[place] = {
                "colour": colours[n],
                "says": says + seed,
                "cells": cells,
                "members": [place],
                "title": f"MLflow id {run.id}",
                "best": place == comparison.best_run,
                "name": run.name,
                "told": f"{comparison.metric} " + ("none" if value is None else f"{value:.4g}"),
            }
    main = next(n for n, each in enumerate(columns) if each["label"] == comparison.metric)
    ordered = [runs[place] for place in range(len(comparison.runs))]
    return Table(columns=columns, main=main, runs=ordered, configurations=configurations)


def _columns(comparison: Comparison, seeds: Sequence[str]) -> list[Row]:
    def column(label: str, title: str = "", *, text: bool = False, more: bool = False) -> Row:
        return {"label": label, "title": title or label, "text": text, "more": more}

    out = [column("run", text=True), column("state", text=True)]
    for n, path in enumerate(comparison.differing):
        words = any(isinstance(_number(c.values[path]), str) for c in comparison.configurations)
        out.append(column(path, text=words, more=n >= _NARROW))
    out += [column(path) for path in seeds]
    for n, name in enumerate(comparison.metrics):
        telling = name.split("/")[0] in ("val", "train")
        title = f"last value; {comparison.wanted}" if n == 0 else "last value"
        out.append(column(name, title, more=n >= _NARROW or (n > 0 and not telling)))
    facts_ = [column(name, title, text=name == "lost most to") for name, title in _FACTS.items()]
    return out + facts_


def _run_cells(comparison: Comparison, run: RunRecord, seeds: Sequence[str]) -> list[Any]:
    fact = facts(run, comparison.metric)
    params = {"experiment": run.experiment, **run.params}
    return [
        run.name,
        f"{fact['state']}, step {fact['step']}",
        *(_number(params.get(path)) for path in (*comparison.differing, *seeds)),
        *(_finite(run.metrics.get(name)) for name in comparison.metrics),
        fact["goodput"],
        fact["lost_most"],
        fact["clips_per_s"],
        fact["hours"],
        fact["worker_hours"],
    ]


def _configuration_cells(
    comparison: Comparison, each: Configuration, own: Sequence[Sequence[Any]], seeds: Sequence[str]
) -> list[Any]:
    count = len(each.members)
    states = Counter(str(cells[1]).split(",")[0] for cells in own)
    spreads = [each.metrics.get(name) for name in comparison.metrics]
    goodput, _, rate, hours, worker_hours = ([c[k] for c in own] for k in range(-5, 0))
    return [
        f"{count} runs" if count > 1 else own[0][0],
        ", ".join(f"{n} {state}" for state, n in states.items()) if count > 1 else own[0][1],
        *(_number(each.values[path]) for path in comparison.differing),
        *(", ".join(sorted(str(c[2 + len(comparison.differing)]) for c in own)) for _ in seeds),
        *(None if s is None else [s.mean, s.sd, s.n] for s in spreads),
        _average(goodput),
        own[0][-4] if count == 1 else None,
        _average(rate),
        sum(hours),
        None if None in worker_hours else sum(worker_hours),
    ]


def _average(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return fmean(told) if told else None


def _number(text: str | None) -> float | int | str | None:
    """A parameter that is written as text, for sorting; `none` and others stay text."""
    if text is None:
        return None
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def _finite(value: float | None) -> float | str | None:
    return str(value) if value is not None and not math.isfinite(value) else value


def _colours(comparison: Comparison) -> list[str]:
    """A colour a configuration: its own, or of many how it ranks, dark is good."""
    many = comparison.configurations
    if len(many) <= FEW:
        return list(_OWN[: len(many)])
    sign = 1 if comparison.mode == "min" else -1

    def worth(n: int) -> float:
        spread = many[n].metrics.get(comparison.metric)
        return math.inf if spread is None else sign * spread.mean

    ranks = {n: rank for rank, n in enumerate(sorted(range(len(many)), key=worth))}
    share = [0.9 * ranks[n] / (len(many) - 1) for n in range(len(many))]
    return [to_hex(colormaps["cividis"](each)) for each in share]
