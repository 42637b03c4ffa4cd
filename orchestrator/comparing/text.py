"""A comparison in words, as Markdown, and as JSON-able data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from orchestrator.comparing.comparison import (
    SEED,
    Comparison,
    Configuration,
    Spread,
    order_of,
    state_of,
)
from orchestrator.comparing.histories import RunRecord

_NAMED = 8  # differing parameters that the headline tells


def facts(run: RunRecord, metric: str) -> dict[str, Any]:
    """What a run took. hours: from its start to its end. worker_hours: times its last number of
    workers; device: what each of them has. goodput: the share of the time that steps took which
    stand; lost_most: the account that took most of the rest."""
    workers = run.tags.get("orchestrator.workers")
    shares = {
        name.removeprefix("goodput/"): share
        for name, share in run.metrics.items()
        if name.startswith("goodput/")
    }
    goodput = shares.pop("fraction", None)
    rest = {
        name: s for name, s in shares.items() if name not in ("compute", "collective") and s > 0
    }
    worst = max(rest, key=lambda name: rest[name], default=None)
    hours = run.seconds / 3600
    return {
        "state": state_of(run),
        "step": run.steps.get(metric, max(run.steps.values(), default=0)),
        "hours": hours,
        "workers": None if workers is None else int(workers),
        "worker_hours": None if workers is None else hours * int(workers),
        "device": "GPU" if run.tags.get("config.resources.use_gpu") == "True" else "CPU",
        "goodput": goodput,
        "lost_most": None if worst is None else f"{worst} {rest[worst]:.1%}",
        "clips_per_s": run.metrics.get("sys/clips_per_s"),
    }


def plain(comparison: Comparison) -> dict[str, Any]:
    """JSON-able; what is not a finite number is null."""
    runs = [
        {
            "name": run.name,
            "id": run.id,
            "params": {path: run.params.get(path) for path in (*comparison.differing, SEED)},
            "metrics": dict(run.metrics),
            **facts(run, comparison.metric),
        }
        for run in comparison.runs
    ]
    out = {
        "metric": comparison.metric,
        "mode": comparison.mode,
        "why": comparison.why,
        "differing": list(comparison.differing),
        "same": dict(comparison.same),
        "configurations": [asdict(each) for each in comparison.configurations],
        "best": comparison.best,
        "best_run": None if comparison.best_run is None else runs[comparison.best_run]["name"],
        "runs": runs,
    }
    cleaned: dict[str, Any] = _finite(out)
    return cleaned


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def headline(comparison: Comparison) -> list[str]:
    """In a few sentences: which is best, what differs, what all cost."""
    runs, count = comparison.runs, len(comparison.configurations)
    experiments = sorted({run.experiment for run in runs if run.experiment})
    many = f"{len(runs)} runs" + (f" of {count} configurations" if count < len(runs) else "")
    told = [f"{many} of {', '.join(experiments) or 'no known experiment'}."]
    if comparison.best is None or comparison.best_run is None:
        told.append(f"No run has told {comparison.metric} yet.")
    else:
        best = comparison.configurations[comparison.best]
        spread = best.metrics[comparison.metric]
        several = "" if spread.sd is None else f" +- {spread.sd:.2g} over {spread.n} seeds"
        values = values_text(best.values)
        told.append(
            f"Best: {comparison.metric} {spread.mean:.5g}{several} ({comparison.wanted})"
            f"{f' with {values}' if values else ''}: {runs[comparison.best_run].name}."
        )
    hours = sum(run.seconds for run in runs) / 3600
    told.append(f"{_differences(comparison)} All runs together took {hours:.3g} hours.")
    return told


def _differences(comparison: Comparison) -> str:
    if not comparison.differing:
        return "Nothing but the seed differs."
    parts = []
    for path in comparison.differing[:_NAMED]:
        values = {str(each.values[path]) for each in comparison.configurations}
        found = sorted(values, key=order_of)
        few = (
            ", ".join(found) if len(found) < 7 else f"{len(found)} values, {found[0]}..{found[-1]}"
        )
        parts.append(f"{path} ({few})")
    more = len(comparison.differing) - len(parts)
    return f"What differs: {'; '.join(parts)}{f'; and {more} more' if more > 0 else ''}."


def markdown(comparison: Comparison, *, metrics: int = 8) -> str:
    """The headline and the table of configurations, the best first; so many metrics."""
    names = comparison.metrics[:metrics]
    sign = 1 if comparison.mode == "min" else -1

    def worth(each: Configuration) -> tuple[bool, float]:
        spread = each.metrics.get(comparison.metric)
        return spread is None, 0.0 if spread is None else sign * spread.mean

    head = [*comparison.differing, "runs", *names, "goodput", "hours"]
    rows = []
    for each in sorted(comparison.configurations, key=worth):
        told = [facts(comparison.runs[n], comparison.metric) for n in each.members]
        shares = [fact["goodput"] for fact in told if fact["goodput"] is not None]
        rows.append(
            [
                *(str(each.values[path]) for path in comparison.differing),
                ", ".join(
                    f"`{comparison.runs[n].name}` {fact['state']}"
                    for n, fact in zip(each.members, told, strict=True)
                ),
                *(spread_text(each.metrics.get(name)) for name in names),
                f"{sum(shares) / len(shares):.0%}" if shares else "",
                f"{sum(fact['hours'] for fact in told):.3g}",
            ]
        )
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines
    )
    first, *rest = headline(comparison)
    note = "mean +- standard deviation over seeds (n runs); hours of all runs together"
    return "\n\n".join([f"# {first}", *rest, table, note]) + "\n"


def values_text(values: Mapping[str, str | None]) -> str:
    """As `width 64, lr 0.001`: by the last part of each path, where it says enough."""
    lasts = [path.rpartition(".")[2] for path in values]
    names = [
        path if last == "name" or lasts.count(last) > 1 else last
        for path, last in zip(values, lasts, strict=True)
    ]
    told = zip(names, values.values(), strict=True)
    return ", ".join(f"{name} {value}" for name, value in told)


def spread_text(spread: Spread | None) -> str:
    """As `1.23 +- 0.04 (3)`."""
    if spread is None:
        return ""
    sd = "" if spread.sd is None else f" +- {spread.sd:.2g} ({spread.n})"
    return f"{spread.mean:.5g}{sd}"
