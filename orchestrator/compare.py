"""Runs, a sweep, or a paper's table beside ours: `python -m orchestrator.compare`.

    python -m orchestrator.compare vgan_unfiltered-0a1b2c3d vgan_unfiltered-4e5f6a7b
    python -m orchestrator.compare vgan_lambda                the newest sweep of that name
    python -m orchestrator.compare --paper sync_draw_table1   a paper's table beside our runs
    python -m orchestrator.compare                            lists the papers' tables

RUN is a run's name, an MLflow run id, or a path. Writes one HTML file that opens offline, with a
sortable table of what differs and what came out, curves, samples and cost; the same as Markdown and
JSON. Runs that differ by their seed alone are one configuration: mean and standard deviation.

A paper's table takes the finished runs that have been evaluated, or those of them that are named. A
cell is of runs that differ by their seed alone, of those whose fields differ least from the
registered experiment's; where some do, it says which. It is printed, and written as Markdown, JSON
and PNG.

Exit status: 0 done, 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from orchestrator import command, figures
from orchestrator.comparing import runs as comparing
from orchestrator.comparing.histories import Histories
from orchestrator.config import flat, identity
from orchestrator.experiments import EXPERIMENTS
from orchestrator.mlflow_runs import Finished, finished_runs
from orchestrator.overrides import suggest
from orchestrator.paper_tables import TABLES, PaperTable
from orchestrator.site import Site

_OWN = ("seed", "init_from")  # fields by which runs of one cell may differ


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What our runs measured for a cell. values: by metric (mean, sd; None of one run). changed:
    fields that are not the registered experiment's, as assignments."""

    runs: tuple[str, ...]
    values: dict[str, tuple[float, float | None]]
    changed: tuple[str, ...]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m orchestrator.compare", description=__doc__)
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("runs", nargs="*", metavar="RUN|SWEEP")
    out.add_argument("--paper", metavar="TABLE", help="a table; without it and RUN, all are listed")
    out.add_argument("--metric", help="by which the best is found; default: the sweep's, or usual")
    out.add_argument("--mode", choices=("min", "max"), help="whether lower or higher is better")
    out.add_argument("--out", type=Path, metavar="DIR", help="default: var/compare")
    out.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    given = parser().parse_args(argv)
    if given.paper is None and not given.runs:
        for table in TABLES.values():
            print(f"{table.name}  {table.title}")
        return 0
    out = given.out or Path("var/compare")
    site = Site.from_environment()
    try:
        if given.paper is not None:
            text, paths, result = _paper(given.paper, given.runs, site, out)
        else:
            histories = Histories(site.mlflow_uri)
            found = comparing.find(given.runs, site, histories)
            made = comparing.compare(found, histories, out, metric=given.metric, mode=given.mode)
            text, paths, result = made.said, made.paths, made.plain
    except (ValueError, OSError) as error:
        return command.wrong_call(error)
    print(text)
    for path in paths:
        print(path.absolute())
    if given.json:
        print(json.dumps(result))
    return 0


def _paper(
    name: str, runs: Sequence[str], site: Site, out: Path
) -> tuple[str, tuple[Path, ...], dict[str, Any]]:
    if name not in TABLES:
        raise ValueError(f"--paper {name}: no such table{suggest(name, TABLES)}")
    table = TABLES[name]
    finished = finished_runs(site.mlflow_uri)
    if runs:
        named = comparing.find(runs, site, Histories(site.mlflow_uri))
        names = {run.name for run in named.runs}
        finished = [run for run in finished if run.name in names]
    found = filled(table, finished)
    out.mkdir(parents=True, exist_ok=True)
    paths = tuple(out / f"{table.name}.{ending}" for ending in ("md", "json", "png"))
    result = plain(table, found)
    paths[0].write_text(as_markdown(table, found))
    paths[1].write_text(json.dumps(result, indent=1))
    paths[2].write_bytes(figures.table(table.title, lines(table, found)))
    return as_text(table, found), paths, result


def filled(table: PaperTable, runs: Sequence[Finished]) -> dict[tuple[str, str], Ours]:
    """By cell what our runs say; nothing for a cell that no run fills."""
    out: dict[tuple[str, str], Ours] = {}
    for place, cell in table.cells.items():
        groups: dict[tuple[str, ...], list[Finished]] = defaultdict(list)
        for run in runs:
            if run.experiment == cell.experiment and table.metrics[0] in run.metrics:
                groups[_changed(run)].append(run)
        if groups:
            changed = min(groups, key=lambda each: (len(each), each))
            out[place] = _ours(groups[changed], changed, table.metrics)
    return out


def _changed(run: Finished) -> tuple[str, ...]:
    registered = flat(identity(EXPERIMENTS[run.experiment]))
    return tuple(
        f"{path}={run.params[path]}"
        for path, value in sorted(registered.items())
        if path not in _OWN and path in run.params and run.params[path] != str(value)
    )


def _ours(runs: Sequence[Finished], changed: tuple[str, ...], metrics: Sequence[str]) -> Ours:
    values: dict[str, tuple[float, float | None]] = {}
    for metric in metrics:
        of_runs = [run.metrics[metric] for run in runs if metric in run.metrics]
        if of_runs:
            values[metric] = fmean(of_runs), stdev(of_runs) if len(of_runs) > 1 else None
    return Ours(runs=tuple(sorted(run.name for run in runs)), values=values, changed=changed)


def lines(table: PaperTable, found: dict[tuple[str, str], Ours]) -> list[list[str]]:
    """The table as rows of cells, the heading first: for each row the paper's, then ours by
    metric, with marks where fields were changed."""
    out = [["", "", *table.columns]]
    marks = _marks(found)
    for row in table.rows:
        cells = [table.cells.get((row, column)) for column in table.columns]
        out.append([row, "paper", *("" if cell is None else cell.printed for cell in cells)])
        for metric in table.metrics:
            ours = [found.get((row, column)) for column in table.columns]
            shown = ["" if each is None else _value(each, metric, marks) for each in ours]
            out.append(["", metric.removeprefix("val/"), *shown])
    return out


def _value(ours: Ours, metric: str, marks: dict[tuple[str, ...], str]) -> str:
    if metric not in ours.values:
        return ""
    mean, sd = ours.values[metric]
    spread = "" if sd is None else f" +- {sd:.3g}"
    return f"{mean:.5g}{spread} ({len(ours.runs)}){marks.get(ours.changed, '')}"


def _marks(found: dict[tuple[str, str], Ours]) -> dict[tuple[str, ...], str]:
    """A letter for each set of fields that were changed."""
    changed = sorted({each.changed for each in found.values() if each.changed})
    return {fields: f" [{chr(ord('a') + n)}]" for n, fields in enumerate(changed)}


def _notes(table: PaperTable, found: dict[tuple[str, str], Ours]) -> list[str]:
    told = [f"Ours: mean +- standard deviation over seeds (runs). {table.note}"]
    told += [
        f"{mark.strip()} not as registered: {', '.join(fields)}"
        for fields, mark in _marks(found).items()
    ]
    return told


def as_text(table: PaperTable, found: dict[tuple[str, str], Ours]) -> str:
    """For a terminal."""
    rows = lines(table, found)
    width = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    body = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, "", *body, "", *_notes(table, found)])


def as_markdown(table: PaperTable, found: dict[tuple[str, str], Ours]) -> str:
    """For a page."""
    head, *rows = ["| " + " | ".join(row) + " |" for row in lines(table, found)]
    rule = "| " + " | ".join(["---"] * (2 + len(table.columns))) + " |"
    notes = "\n".join(f"- {note}" for note in _notes(table, found))
    return "\n".join([f"## {table.title}", "", head, rule, *rows, "", notes, ""])


def plain(table: PaperTable, found: dict[tuple[str, str], Ours]) -> dict[str, Any]:
    """JSON-able: every cell with what the paper prints and what ours are."""
    cells = []
    for (row, column), cell in table.cells.items():
        ours = found.get((row, column))
        told = None if ours is None else asdict(ours)
        cells.append({"row": row, "column": column, **asdict(cell), "ours": told})
    return {"table": table.name, "title": table.title, "note": table.note, "cells": cells}


if __name__ == "__main__":
    sys.exit(main())
