"""What interruptions cost: goodput, the best checkpoint cadence, spot against on-demand.

    python -m orchestrator.goodput --on 8xh100 [--checkpoint-s 1] [--restart-s 60] ...

The model. A run of N nodes is interrupted at random (Poisson) in two ways: *failures*, at the rate
F = N / mean time between a node's failures, lose the work since the last checkpoint; *notices*
(spot preemption with enough warning), at the rate P, lose none, because a checkpoint is written
within the notice. After either, the run is back after a restart, which can be interrupted as well.
A checkpoint blocks training for c and is durable w later. With A = F + P, the expected time from
one checkpoint to the next, T of training apart, is exactly (w = 0)

    f(T) = K A / P ln(1 + P / A (exp(A (T + c)) - 1)),   K = 1/A + R + (P j + F w) / A,
    R = (exp(A r) - 1) / A,   goodput = T / f(T)

with r the restart, j the checkpoint within the notice. It follows from f(x) = work left to the next
checkpoint, conditioned on the first interruption; for P = 0 it is Daly's (2006) complete model, and
its best T tends to Young's sqrt(2 c / F). A failure within w of a checkpoint falls back on the one
before; F w / A counts that to first order.

Assumed: independent interruptions, nodes that can be replaced, linear scaling over GPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.hardware import Machine, find_machine

HOUR_S = 3600.0
# 419 interruptions of 16,384 GPUs (2,048 nodes) in 54 days: The Llama 3 Herd of Models, 3.3.4.
NODE_MTBF_H = 2048 * 54 * 24 / 419
_NEVER = (math.inf, False)
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How a run is interrupted and what each interruption costs; seconds.

    node_mtbf_s: mean time between failures of one node; infinite for none.
    node_preemption_s: mean time between preemptions of one node; infinite on demand.
    notice_s: warning before a preemption; one too short for `notice_checkpoint_s` is a failure.
    notice_checkpoint_s: until a checkpoint begun at the notice is durable.
    checkpoint_s: training blocked by a periodic checkpoint; durable `write_s` later.
    restart_s: from the interruption to the first step after it.
    """

    node_mtbf_s: float
    node_preemption_s: float = math.inf
    notice_s: float = 0.0
    notice_checkpoint_s: float = 0.0
    checkpoint_s: float
    write_s: float = 0.0
    restart_s: float

    def __post_init__(self) -> None:
        for name in ("node_mtbf_s", "node_preemption_s", "checkpoint_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be greater than 0")
        for name in ("notice_s", "notice_checkpoint_s", "write_s", "restart_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be finite, 0 or more")

    def rates(self, nodes: int) -> tuple[float, float]:
        """(failures, noticed preemptions) a second of `nodes` nodes together."""
        failures, preemptions = nodes / self.node_mtbf_s, nodes / self.node_preemption_s
        if self.notice_s >= self.notice_checkpoint_s:
            return failures, preemptions
        return failures + preemptions, 0.0


def goodput(faults: Faults, nodes: int, every_s: float) -> float:
    """The share of the time that trains and is kept, in [0, 1], with a checkpoint every `every_s`
    seconds of training. 0 where progress is hopeless."""
    failures, notices = faults.rates(nodes)
    interval = every_s + faults.checkpoint_s
    total = failures + notices
    if total == 0:
        return every_s / interval
    if total * max(interval, faults.restart_s) > 500:  # exp() would overflow: nothing gets done
        return 0.0
    restart = math.expm1(total * faults.restart_s) / total
    extra = notices * faults.notice_checkpoint_s + failures * faults.write_s
    each = 1 / total + restart + extra / total
    grown = math.expm1(total * interval)
    if notices:
        expected = each * total / notices * math.log1p(notices / total * grown)
    else:
        expected = each * grown
    return every_s / expected


def best_cadence(faults: Faults, nodes: int) -> float:
    """Seconds of training between checkpoints that make goodput highest (it has one maximum)."""
    low, high = math.log(1e-3 * faults.checkpoint_s), math.log(1e9)
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if goodput(faults, nodes, math.exp(left)) >= goodput(faults, nodes, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def replay(
    faults: Faults, hits: Iterable[tuple[float, bool]], *, every_s: float, useful_s: float
) -> float:
    """Seconds until `useful_s` seconds of training stand, interrupted at given moments.

    hits: (seconds since the start, whether noticed in time), ascending. Knows nothing of the
    formula: durable checkpoints, interruptions while restarting, and falling back by one while a
    checkpoint is being written are what happens, event by event. The end is a checkpoint too.
    """
    coming = iter(hits)
    at, noticed = next(coming, _NEVER)
    clock = done = durable = 0.0
    writing = (math.inf, 0.0)  # (when it is durable, the training it holds)
    while done < useful_s:
        boundary = min(useful_s, (math.floor(done / every_s + 1e-9) + 1) * every_s)
        ends = clock + boundary - done + faults.checkpoint_s
        if writing[0] <= min(at, ends):
            durable, writing = writing[1], (math.inf, 0.0)
        if ends <= at:
            clock, done = ends, boundary
            writing = (clock + faults.write_s, done)
            continue
        if noticed:
            durable = min(boundary, done + at - clock)
        clock, done = at + noticed * faults.notice_checkpoint_s, durable
        writing = (math.inf, 0.0)
        back = clock + faults.restart_s
        while at < back:  # one while restarting begins it anew; one while checkpointing does not
            clock = max(clock, at)
            back = clock + faults.restart_s
            at, noticed = next(coming, _NEVER)
        clock = back
    return clock


def simulate(faults: Faults, nodes: int, every_s: float, *, useful_s: float, seed: int) -> float:
    """The goodput of one random run of `useful_s` seconds of training."""
    failures, notices = faults.rates(nodes)
    draw = random.Random(seed)

    def hits() -> Iterator[tuple[float, bool]]:
        at = 0.0
        while failures + notices:
            at += draw.expovariate(failures + notices)
            yield at, draw.random() * (failures + notices) < notices

    return useful_s / replay(faults, hits(), every_s=every_s, useful_s=useful_s)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One number of GPUs bought one way, each at its best cadence."""

    gpus: int
    spot: bool
    interruptions_per_day: float
    checkpoint_every_s: float
    goodput: float
    usd_per_hour: float
    usd_per_useful_gpu_hour: float


def offers(machine: Machine, faults: Faults, *, gpus: tuple[int, ...] = GPUS) -> list[Offer]:
    """On-demand and spot, side by side, for each number of GPUs in nodes of `machine`.

    On demand a node is never preempted. A machine without a price has no offers of that kind.
    """
    on_demand = dataclasses.replace(faults, node_preemption_s=math.inf)
    out = []
    for count in gpus:
        nodes = -(-count // machine.count)
        for spot, price in ((False, machine.on_demand_usd), (True, machine.spot_usd)):
            if price is None:
                continue
            each = faults if spot else on_demand
            every_s = best_cadence(each, nodes)
            share = goodput(each, nodes, every_s)
            out.append(
                Offer(
                    gpus=nodes * machine.count,
                    spot=spot,
                    interruptions_per_day=sum(each.rates(nodes)) * 24 * HOUR_S,
                    checkpoint_every_s=every_s,
                    goodput=share,
                    usd_per_hour=nodes * price,
                    usd_per_useful_gpu_hour=price / machine.count / share if share else math.inf,
                )
            )
    return out


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 done, 2 the call was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.goodput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--on", default="8xh100", help="machine of hardware.json (%(default)s)")
    parser.add_argument(
        "--mtbf-h", type=float, default=NODE_MTBF_H, help="of a node (%(default).0f)"
    )
    parser.add_argument(
        "--preemption-h", type=float, default=24.0, help="mean, of a spot node (%(default)s)"
    )
    parser.add_argument("--notice-s", type=float, default=120.0, help="(%(default)s)")
    parser.add_argument("--notice-checkpoint-s", type=float, default=10.0, help="(%(default)s)")
    parser.add_argument("--checkpoint-s", type=float, default=1.0, help="blocked (%(default)s)")
    parser.add_argument("--write-s", type=float, default=10.0, help="until durable (%(default)s)")
    parser.add_argument("--restart-s", type=float, default=60.0, help="(%(default)s)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    try:
        machine = find_machine(given.on)
        if machine.on_demand_usd is None:
            raise ValueError(f"--on {given.on}: has no price; name a machine for hire")
        faults = Faults(
            node_mtbf_s=given.mtbf_h * HOUR_S,
            node_preemption_s=given.preemption_h * HOUR_S,
            notice_s=given.notice_s,
            notice_checkpoint_s=given.notice_checkpoint_s,
            checkpoint_s=given.checkpoint_s,
            write_s=given.write_s,
            restart_s=given.restart_s,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _show(machine, faults, as_json=given.json)
    return 0


def _show(machine: Machine, faults: Faults, *, as_json: bool) -> None:
    rows = offers(machine, faults)
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    print(
        f"{machine.name}, prices of {machine.as_of}; a node fails every "
        f"{faults.node_mtbf_s / HOUR_S:.0f} h, a spot node is taken every "
        f"{faults.node_preemption_s / HOUR_S:g} h with {faults.notice_s:g} s notice; "
        f"restart {faults.restart_s:g} s, checkpoint blocks {faults.checkpoint_s:g} s"
    )
    print("gpus  bought     interrupted/day  checkpoint every  goodput    USD/h  USD/useful GPU-h")
    for row in rows:
        print(
            f"{row.gpus:>4}  {'spot' if row.spot else 'on-demand':<9}  "
            f"{row.interruptions_per_day:>15.2f}  {row.checkpoint_every_s:>14.0f} s  "
            f"{row.goodput:>7.4f}  {row.usd_per_hour:>7.2f}  {row.usd_per_useful_gpu_hour:>16.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
