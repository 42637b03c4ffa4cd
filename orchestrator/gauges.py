"""A worker's figures as gauges for Prometheus, which Ray's agent on each node offers.

Prometheus sees them with the prefix `ray_`: `ray_orchestrator_step{run="..."}`. Rank 0 tells
of the run, every rank of the samples that it could not read. The chart's alerts and dashboard
(`helm/orchestrator/files`) use these names and no others.
"""

from __future__ import annotations

from collections.abc import Mapping

TAGS = ("run", "experiment")
# name: (what the worker calls it, what it is). A `*` stands for the value of the tag `of`.
RUN_GAUGES = {
    "orchestrator_step": ("step", "Steps done."),
    "orchestrator_train": ("train/*", "A loss or another metric of training, the last window's."),
    "orchestrator_clips_per_second": ("sys/clips_per_s", "Clips trained on a second."),
    "orchestrator_step_seconds": ("sys/step_s", "Seconds a step."),
    "orchestrator_data_wait_seconds": ("data/wait_s", "Seconds a step that a worker waited."),
    "orchestrator_compute_seconds": ("sys/compute_s", "Seconds a step, the median worker's."),
    "orchestrator_compute_slowest_seconds": ("sys/compute_slowest_s", "The slowest worker's."),
    "orchestrator_slowest_rank": ("sys/slowest_rank", "The slowest worker."),
    "orchestrator_mfu": ("sys/mfu", "Share of the devices' dense peak."),
    "orchestrator_tflop_per_second": ("sys/tflop_per_s", "Operations a second, 1e12."),
    "orchestrator_goodput": ("goodput/*", "Share of the run's time by account, and `fraction`."),
    "orchestrator_rollbacks": ("rollbacks", "Times that the loss exploded and the run went back."),
    "orchestrator_checkpoint_timestamp_seconds": (
        "checkpoint_at",
        "When the newest durable checkpoint was whole, or the worker began; s since 1970.",
    ),
}
RANK_GAUGES = {
    "orchestrator_rejected_samples": ("rejected", "Samples that this rank could not read so far."),
}


class Gauges:
    """The gauges of one worker. Needs a connected Ray."""

    def __init__(self, *, run: str, experiment: str, rank: int) -> None:
        from ray.util.metrics import Gauge

        self._tags = {"run": run, "experiment": experiment}
        self._rank = {"rank": str(rank)}
        self._gauges = {
            name: Gauge(name, description=says, tag_keys=(*TAGS, *_more(name)))
            for name, (_, says) in (RUN_GAUGES | RANK_GAUGES).items()
        }

    def tell(self, figures: Mapping[str, float]) -> None:
        """Sets what `figures`, by the worker's names, has; the rest stays."""
        for name, (key, _) in RUN_GAUGES.items():
            if not key.endswith("*"):
                self._set(name, figures.get(key), {})
                continue
            for each, value in figures.items():
                if each.startswith(key[:-1]):
                    self._set(name, value, {"of": each[len(key) - 1 :]})
        for name, (key, _) in RANK_GAUGES.items():
            self._set(name, figures.get(key), self._rank)

    def _set(self, name: str, value: float | None, more: dict[str, str]) -> None:
        if value is not None:
            self._gauges[name].set(value, tags=self._tags | more)


def _more(name: str) -> tuple[str, ...]:
    if name in RANK_GAUGES:
        return ("rank",)
    return ("of",) if RUN_GAUGES[name][0].endswith("*") else ()
