"""What `--plan` adds to a plan: operations, memory, bytes, time and cost before anything runs.

All of it is arithmetic on counted figures (`orchestrator.cost`, `hardware.json`), but for
`measured`: the rate that an earlier run of the same model and batch reached.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.config import Experiment, flat, identity
from orchestrator.cost import StepCost, step_cost
from orchestrator.hardware import ASSUMED_MFU, Machine, expect
from orchestrator.site import Site
from shards.manifest import Manifest

_GIB = 2**30


def estimate(
    experiment: Experiment, manifest: Manifest, site: Site, machine: Machine | None
) -> dict[str, Any]:
    """The estimate of a run as plain data. machine: also the time and cost there."""
    cost = step_cost(experiment.model.build, experiment.model.clip_shape)
    batch, steps = experiment.data.global_batch, experiment.budget.steps
    least = experiment.resources.num_workers.minimum
    stored = sum(shard.bytes for shard in manifest.shards)
    out: dict[str, Any] = {
        "gflop_per_clip": {
            **{phase: flops / 1e9 for phase, flops in cost.flops_per_clip.items()},
            "step": cost.flops / 1e9,
        },
        "pflop": cost.flops * batch * steps / 1e15,
        "memory_gib_per_worker": memory(cost, -(-batch // least)),
        "checkpoint_mib": cost.checkpoint_bytes / 2**20,
        "checkpoints_kept_gib": experiment.budget.keep_checkpoints * cost.checkpoint_bytes / _GIB,
        "read_gib": {
            "epoch": stored / _GIB,
            "run": stored / manifest.samples * batch * steps / _GIB,
        },
    }
    rate = measured(site, experiment)
    if rate is not None:
        rate["hours"] = batch * steps / rate["clips_per_s"] / 3600
        rate["tflop_per_s"] = rate["clips_per_s"] * cost.flops / 1e12
    out["measured"] = rate
    if machine is not None:
        out[f"on_{machine.name}"] = on(machine, cost, batch=batch, steps=steps)
    return out


def memory(cost: StepCost, clips: int) -> dict[str, float]:
    """GiB of one worker with `clips` clips a step, in float32, by what holds them."""
    parts = {
        "weights": cost.weights,
        "gradients": cost.gradients,
        "adam": cost.adam,
        f"activations of {clips} clips": cost.activations_fixed + clips * cost.activations_per_clip,
        "peak": cost.peak_bytes(clips),
    }
    return {name: size / _GIB for name, size in parts.items()}


def on(machine: Machine, cost: StepCost, *, batch: int, steps: int) -> dict[str, Any]:
    """Time and cost on one node of `machine`, a worker for each accelerator."""
    clips = -(-batch // machine.count)
    need = cost.peak_bytes(clips) / _GIB
    return {
        "assumes": f"MFU {ASSUMED_MFU} and no interruption: arithmetic, not a measurement",
        "prices_as_of": machine.as_of,
        "clips_per_worker": clips,
        "memory_gib": f"{need:.2f} of {machine.memory_gib:g}"
        + ("" if need < machine.memory_gib else ": DOES NOT FIT, take more workers"),
        **{
            each.precision: {
                name: value
                for name, value in dataclasses.asdict(each).items()
                if name != "precision"
            }
            for each in expect(machine, flops_per_clip=cost.flops, clips=batch * steps)
        },
    }


def measured(site: Site, experiment: Experiment) -> dict[str, Any] | None:
    """The rate of the newest run of this model and global batch that was driven from here.

    clips_per_s: the median over the second half of what it logged. None without such a run.
    """
    model = {k: str(v) for k, v in flat(identity(experiment.model), "model").items()}
    wanted = model | {"data.global_batch": str(experiment.data.global_batch)}
    found: list[tuple[float, dict[str, Any]]] = []
    for folder in _outboxes(site):
        told: dict[str, str] = {}
        for record in _records(folder / "driver.jsonl"):
            if record["kind"] in ("params", "tags"):
                told |= record["values"]
        if {k: v for k, v in told.items() if k.startswith("model.") or k in wanted} != wanted:
            continue
        metrics = [r for r in _records(folder / "rank0.jsonl") if r["kind"] == "metrics"]
        rates = [
            r["values"]["sys/clips_per_s"] for r in metrics if "sys/clips_per_s" in r["values"]
        ]
        if rates:
            rate = {
                "clips_per_s": median(rates[len(rates) // 2 :]),
                "experiment": told.get("orchestrator.experiment", ""),
                "host": told.get("orchestrator.host", ""),
                "workers": told.get("config.resources.num_workers", ""),
            }
            found.append((metrics[-1]["ms"], rate))
    return max(found, key=lambda each: each[0])[1] if found else None


def _outboxes(site: Site) -> list[Path]:
    """The folder of every run whose records are kept on this machine."""
    parts = site.outbox("*").parts
    root = Path(*parts[: parts.index("*")])
    return sorted(root.glob("/".join(parts[parts.index("*") :])))


def _records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of an outbox's file; a run may be writing it."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]
