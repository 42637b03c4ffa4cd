"""The machines that a plan can be priced for: `hardware.json`, a table of data with its sources.

Time and cost from it are arithmetic: operations over peak rate times an assumed share of it (MFU).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from orchestrator.overrides import suggest

ASSUMED_MFU = 0.3


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One node. memory_gib and peak_tflops (dense, by precision) are of each accelerator.

    on_demand_usd, spot_usd: an hour of the whole node; None where there is no such price.
    """

    name: str
    accelerator: str
    count: int
    memory_gib: float
    peak_tflops: dict[str, float]
    on_demand_usd: float | None
    spot_usd: float | None
    as_of: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a run should take on a machine in one precision; costs in USD, None without a price."""

    precision: str
    clips_per_s: float
    hours: float
    on_demand_usd: float | None
    spot_usd: float | None


@cache
def machines() -> dict[str, Machine]:
    """Every machine of the table by name."""
    table = json.loads(files("orchestrator").joinpath("hardware.json").read_text())
    return {name: _machine(name, row, table) for name, row in table["machines"].items()}


def find_machine(name: str) -> Machine:
    """The machine `name`. Raises ValueError with the nearest match."""
    if name not in machines():
        raise ValueError(f"--on {name!r}: no such machine{suggest(name, machines())}")
    return machines()[name]


def peak_tflops(device: str, precision: str) -> float | None:
    """The dense peak of a device as its driver names it, as in "NVIDIA H200"; None if unknown."""
    words = re.split(r"[^a-z0-9]+", device.lower())
    for machine in machines().values():
        if machine.accelerator.split("-")[0] in words:
            return machine.peak_tflops.get(precision)
    return None


def expect(
    machine: Machine, *, flops_per_clip: float, clips: float, mfu: float = ASSUMED_MFU
) -> list[Expectation]:
    """Time and cost of training on `clips` clips, one line a precision, all accelerators in use.

    mfu: the share of the peak rate that is reached, the same assumed for every precision.
    Interruptions are not in it; see `orchestrator.goodput`.
    """
    out = []
    for precision, peak in machine.peak_tflops.items():
        rate = machine.count * peak * 1e12 * mfu / flops_per_clip
        hours = clips / rate / 3600
        out.append(
            Expectation(
                precision=precision,
                clips_per_s=rate,
                hours=hours,
                on_demand_usd=_times(hours, machine.on_demand_usd),
                spot_usd=_times(hours, machine.spot_usd),
            )
        )
    return out


def _times(hours: float, usd: float | None) -> float | None:
    return None if usd is None else hours * usd


def _machine(name: str, row: dict[str, Any], table: dict[str, Any]) -> Machine:
    accelerator = table["accelerators"][row["accelerator"]]
    price = table["prices"][row["price"].split()[0]]
    return Machine(
        name=name,
        accelerator=row["accelerator"],
        count=row["count"],
        memory_gib=accelerator["memory_gib"],
        peak_tflops=accelerator["peak_tflops"],
        on_demand_usd=row["on_demand_usd"],
        spot_usd=row["spot_usd"],
        as_of=price["as_of"],
        source=f"{row['price']}: {price['source']}; {accelerator['source']}",
    )
