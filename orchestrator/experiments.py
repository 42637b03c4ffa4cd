"""Every experiment of the papers by name, and the named scales that fit one to a machine.

Adding an experiment is adding a value to `EXPERIMENTS` of its paper's room, `<paper>_experiments`.
Importing this room imports torch (through the models' configs) but neither ray nor mlflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import sync_draw_experiments, vgan_experiments, video_vae_experiments
from orchestrator.config import Experiment, flat
from orchestrator.overrides import override, suggest

_PAPERS = (vgan_experiments, sync_draw_experiments, video_vae_experiments)

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for paper in _PAPERS for experiment in paper.EXPERIMENTS
}

# Overrides applied before the user's own, for every experiment and then by kind of model.
SCALES: dict[str, tuple[str, ...]] = {
    "laptop": (
        "data.global_batch=16",
        "data.prefetch_mib=64",
        "budget.steps=500",
        "budget.checkpoint_every=100",
        "budget.samples_every=100",
        "resources.num_workers=2",
        "resources.use_gpu=false",
        "resources.cpus_per_worker=1",
        "resources.threads=1",
    ),
    "node": ("resources.num_workers=1..8",),
    "cluster": ("resources.num_workers=8..64", "resources.sync_batch_norm=true"),
}
MODEL_SCALES = {kind: scale for paper in _PAPERS for kind, scale in paper.SCALES.items()}


def find(name: str) -> Experiment:
    """The registered experiment `name`. Raises ValueError with the nearest match."""
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}{suggest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]


def resolve(name: str, scale: str | None, assignments: list[str]) -> Experiment:
    """The experiment `name` at `scale`, with the user's overrides on top.

    Raises ValueError naming what is wrong and what is valid.
    """
    experiment = find(name)
    bundle: tuple[str, ...] = ()
    if scale is not None:
        if scale not in SCALES:
            raise ValueError(f"no scale {scale!r}{suggest(scale, SCALES)}")
        bundle = SCALES[scale] + MODEL_SCALES[type(experiment.model)].get(scale, ())
    return override(experiment, [*bundle, *assignments])


def assignments(resolved: Mapping[str, Any]) -> list[str]:
    """What `override` needs to make the registered experiment the resolved one.

    resolved: as `orchestrator.config.plain` writes it, or as JSON gives it back.
    Raises ValueError for an experiment or a field that this version does not know.
    """
    registered, wanted = flat(find(resolved["name"])), flat(resolved)
    if unknown := sorted(wanted.keys() - registered.keys()):
        raise ValueError(f"{resolved['name']} has no field {unknown[0]!r} in this version")
    return [
        f"{path}={_as_text(value)}"
        for path, value in wanted.items()
        if path not in ("name", "paper") and _as_text(value) != _as_text(registered[path])
    ]


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
