"""Every sweep by name: an experiment, a space, and how the space is searched.

Adding a sweep is adding a value to `SWEEPS`. Importing this room imports neither ray nor mlflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from orchestrator.config import Experiment, free, identity, require
from orchestrator.experiments import resolve
from orchestrator.hardware import find_machine
from orchestrator.overrides import override, suggest

Searcher = Literal["grid", "random", "tpe"]
Scheduler = Literal["none", "asha", "median", "pbt"]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is varied, what is looked for, and when a trial or the sweep ends.

    about: the question, in a sentence. base: the experiment that every trial overrides.
    space: values by dotted path, see `orchestrator.sweeping.space`.
    objectives: `metric:min` or `metric:max` of a training window, several with commas (no
    scheduler then). searcher: "grid" takes all points in turn, "random" draws, "tpe" is Optuna's
    Tree-structured Parzen Estimator, of several objectives too.
    scheduler: "asha" stops a trial at a rung unless it is among the best 1/eta that came there;
    "median" one that is worse than the median of the others' means; "pbt" gives the worst quarter
    the weights of one of the best, and changed values.
    reports: of a trial, evenly over its steps; grace: how many every trial gives at least; eta:
    from rung to rung, times as many steps. trials: at most; concurrent: at a time, none for as many
    as fit. hours, gpu_hours, usd: the sweep ends where it has taken so much; usd needs `machine`, a
    name of hardware.json, whose price by its GPUs is counted.
    scales: overrides of a named scale, after the experiment's own.
    """

    name: str
    about: str
    base: str
    space: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    scales: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    objectives: str
    searcher: Searcher = "tpe"
    scheduler: Scheduler = "asha"
    reports: int = 10
    grace: int = 2
    eta: int = 2
    seed: int = 0
    trials: int = free(16)
    concurrent: int | None = free(None)
    hours: float | None = free(None)
    gpu_hours: float | None = free(None)
    usd: float | None = free(None)
    machine: str | None = free(None)

    given: ClassVar[frozenset[str]] = frozenset(
        {"name", "about", "base", "space", "overrides", "scales"}
    )

    def __post_init__(self) -> None:
        for name, least in (("reports", 1), ("grace", 1), ("eta", 2), ("trials", 1), ("seed", 0)):
            value = getattr(self, name)
            require(value >= least, f"sweep.{name}", value, f"at least {least}")
        require(self.grace <= self.reports, "sweep.grace", self.grace, "at most sweep.reports")
        for name in ("concurrent", "hours", "gpu_hours", "usd"):
            value = getattr(self, name)
            require(value is None or value > 0, f"sweep.{name}", value, "none or greater than 0")
        if self.machine is not None:
            find_machine(self.machine)
        priced = self.usd is None or self.machine is not None
        require(priced, "sweep.usd", self.usd, "beside sweep.machine, whose price is counted")
        several = len(self.goals) > 1
        require(
            not several or self.scheduler == "none",
            "sweep.scheduler",
            self.scheduler,
            "none with several objectives: there is no one order to stop trials by",
        )
        pbt = self.scheduler == "pbt"
        require(
            not pbt or self.searcher == "random",
            "sweep.searcher",
            self.searcher,
            "random with pbt, whose trials change their values as they go",
        )

    @property
    def goals(self) -> tuple[tuple[str, Literal["min", "max"]], ...]:
        """(metric, mode) of every objective. Raises ValueError naming what is wrong."""
        out: list[tuple[str, Literal["min", "max"]]] = []
        for text in self.objectives.split(","):
            metric, _, mode = text.strip().partition(":")
            if not metric or mode not in ("min", "max"):
                raise ValueError(f"sweep.objectives={text!r}: must be METRIC:min or METRIC:max")
            out.append((metric, "min" if mode == "min" else "max"))
        return tuple(out)

    @property
    def usd_per_gpu_hour(self) -> float | None:
        """On demand, of `machine`; None where it has no price or there is no machine."""
        if self.machine is None:
            return None
        machine = find_machine(self.machine)
        return None if machine.on_demand_usd is None else machine.on_demand_usd / machine.count


def resolve_sweep(name: str, scale: str | None, assignments: list[str]) -> tuple[Sweep, Experiment]:
    """(the sweep `name`, the experiment that its trials override), with the user's overrides:
    `sweep.FIELD=...` of the sweep, `space.PATH=...` of the space (`none` takes a path out), any
    other of the experiment.

    Raises ValueError naming what is wrong and what is valid.
    """
    if name not in SWEEPS:
        raise ValueError(f"no sweep {name!r}{suggest(name, SWEEPS)}")
    sweep = SWEEPS[name]
    bundle = sweep.scales.get(scale, ()) if scale is not None else ()
    of_sweep, of_space, others = [], dict(sweep.space), list(sweep.overrides)
    for assignment in [*bundle, *assignments]:
        path, _, value = assignment.partition("=")
        if path.startswith("sweep."):
            of_sweep.append(assignment.removeprefix("sweep."))
        elif path.startswith("space."):
            of_space[path.removeprefix("space.")] = value
        else:
            others.append(assignment)
    kept = {path: value for path, value in of_space.items() if value.lower() != "none"}
    changed = override(replace(sweep, space=kept), of_sweep)
    return changed, resolve(sweep.base, scale, others)


def definition(sweep: Sweep, experiment: Experiment, version: str) -> dict[str, Any]:
    """What decides which trials there are and which are stopped: the sweep's identity."""
    return {
        "sweep": {k: v for k, v in identity(sweep).items() if k not in ("about", "scales")}
        | {"space": dict(sweep.space), "overrides": []},
        "experiment": identity(experiment),
        "dataset": version,
    }


def sweep_name(sweep: Sweep, experiment: Experiment, version: str) -> str:
    """`<sweep>-<hash8>` of the definition: the same command is the same sweep, and resumes it."""
    text = json.dumps(definition(sweep, experiment, version), sort_keys=True)
    return f"{sweep.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


SWEEPS: dict[str, Sweep] = {
    sweep.name: sweep
    for sweep in (
        Sweep(
            name="sync_draw_t_k",
            about="How many strokes (T) of how fine a window (K) draw the digits best?",
            base="sync_draw_one_digit",
            space={"model.strokes": "2,4,8,16", "model.grid": "2,5,8,12"},
            objectives="loss:min",
            searcher="grid",
            scales={"laptop": ("space.model.strokes=1,2,4", "space.model.grid=2,5,8")},
        ),
        Sweep(
            name="vgan_lambda",
            about="What does the weight of the mask's prior (lambda) do to what moves?",
            base="vgan_unfiltered",
            space={"model.mask_lambda": "0,1e-3,1e-2,3e-2,1e-1,3e-1,1,10"},
            objectives="d_fake:max",
            searcher="grid",
        ),
        Sweep(
            name="vgan_lr_width",
            about="Which learning rate suits which width?",
            base="vgan_unfiltered",
            space={"optim.lr": "log:2e-5..2e-3", "model.width": "32,64,128"},
            objectives="d_loss:max",
            scales={"laptop": ("space.model.width=8,16,32",)},
        ),
        Sweep(
            name="sync_draw_z_hidden",
            about="How large a latent and how large a memory does drawing need?",
            base="sync_draw_one_digit",
            space={"model.latent": "10..200", "model.hidden": "log:64..512"},
            objectives="loss:min",
            scales={"laptop": ("space.model.hidden=log:32..256",)},
        ),
        Sweep(
            name="video_vae_kl_weight",
            about="What is gained and lost by weighing VideoVAE's KL?",
            base="video_vae_weizmann",
            space={"model.kl_weight": "log:1e-2..10"},
            objectives="reconstruction:min,kl:min",
            scheduler="none",
        ),
        Sweep(
            name="vgan_future_lambda",
            about="How strongly should the future's first frame be held to the one given?",
            base="vgan_future_golf",
            space={"model.first_frame_lambda": "log:1e-1..1e3"},
            objectives="first_frame:min,d_fake:max",
            scheduler="none",
        ),
    )
}
