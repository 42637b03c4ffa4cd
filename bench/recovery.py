"""How long until a run trains again, ours beside bare Ray Train: `python bench/recovery.py`.

Both train the same small VGAN on this machine's CPU with the same checkpoints; bare Ray Train
(bench/peers/ray_train.py) is written and set as Ray's documentation does. Measured:

- worker killed: SIGKILL to every worker, to the first step done again. In turns, the median.
- node lost: SIGKILL to all of a node of a head and two nodes (raylets in a network namespace that
  notice a lost node within 5 s), to the first step done again by the one that is left.
- node taken away with notice: steps that have to be done again.
- the model of orchestrator.goodput: a run with worker kills at random times (fixed seed), its time
  against `goodput.replay` of the same kills with the restart, checkpoint and step times measured
  before and besides.

Ours counts until a step's checkpoint is on disk, bare Ray Train until its step is done. Needs root
for the two with nodes; without it they are left out.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from restart.runs import ROOT, Bare, Ours, Site, kill_workers, seconds_back, wait, wait_for_steps

from orchestrator.goodput import Faults, replay
from tests.conftest import write_dataset
from tests.faults.cluster import why_not

RESULT = ROOT / "bench" / "results" / "recovery.json"
ROUNDS, KILLS = 2, 2
STEPS, EVERY = 600, 50  # of the run that the model is held against
NOTICE_S = 20


def worker_killed(site: Path) -> dict[str, list[float]]:
    """Seconds back after a kill of the worker, of each kind, in turns."""
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(ROUNDS):
        for name, kind in (("ours", Ours), ("bare", Bare)):
            run = kind(site, f"killed-{name}", every=1).forget().start()
            try:
                for _ in range(KILLS):
                    wait_for_steps(run)
                    back_s = seconds_back(run, kill_workers(run))
                    found[name].append(back_s)
                    print(f"  {name}: worker killed, back after {back_s:.1f} s", flush=True)
            finally:
                run.end()
    return found


def node_lost(site: Path) -> dict[str, float]:
    """Seconds back, of each kind, after a node is lost."""
    found = {}
    for name, kind in (("ours", Ours), ("bare", Bare)):
        with Site(site, kind, f"lost-{name}", every=1) as made:
            found[name] = seconds_back(made.run, made.lose_a_node())
            print(f"  {name}: node lost, back after {found[name]:.1f} s", flush=True)
    return found


def node_taken_away(site: Path) -> dict[str, int]:
    """Steps done again, of each kind, by a notice of NOTICE_S before a node is lost."""
    found = {}
    for name, kind in (("ours", Ours), ("bare", Bare)):
        with Site(site, kind, f"taken-{name}", every=10) as made:
            made.cluster.notice(NOTICE_S)(made.two)
            time.sleep(NOTICE_S)
            made.lose_a_node()
            (found[name],) = wait(made.run, made.run.lost, "second attempt")
            print(f"  {name}: node taken away, {found[name]} steps done again", flush=True)
    return found


def modelled(site: Path, restart_s: float) -> dict[str, float]:
    """Seconds of a run with worker kills, measured, and as goodput's replay of the kills has it.

    restart_s: from a kill to the first step done after it, as measured on other runs; `error_own`
    is what is left of the error with the mean of this run's own restarts.
    """
    run = Ours(site, "modelled", every=EVERY, steps=STEPS).forget().start()
    draw = random.Random(4)
    kills: list[float] = []
    try:
        for low in range(EVERY, STEPS - EVERY, STEPS // 3):
            step = low + draw.randrange(2 * EVERY)
            wait(run, lambda step=step: (run.told() or [(0, 0)])[-1][0] >= step, f"step {step}")
            kills.append(kill_workers(run))
        if run.process.wait(600):
            raise RuntimeError(run.text[-4000:])
    finally:
        run.end()
    times = run.told()
    pairs = list(pairwise(times))
    step_s = statistics.fmean(
        b - a for (_, a), (_, b) in pairs if not any(a < at < b for at in kills)
    )
    began, ended = times[0][1] - step_s, times[-1][1]
    store = run.store
    first = [json.loads(store.read(name))["first_step"] for name, _ in store.list("attempts/")][1:]
    back = [next((step, at) for step, at in times if at > kill) for kill in kills]
    own_s = statistics.fmean(
        at - kill - (step - again) * step_s
        for kill, (step, at), again in zip(kills, back, first, strict=True)
    )
    written = dict(run.done_since(0))
    write_s = statistics.median(written[step] - at for step, at in times if step in written)
    blocked_s = json.loads(store.read("accounts.json"))["spent"]["checkpoint"]

    def predicted(restart_s: float) -> float:
        faults = Faults(
            node_mtbf_s=math.inf,
            checkpoint_s=blocked_s / (STEPS / EVERY),
            write_s=write_s,
            restart_s=restart_s,
        )
        hits = [(at - began, False) for at in kills]
        return replay(faults, hits, every_s=EVERY * step_s, useful_s=STEPS * step_s)

    measured_s = ended - began
    return {
        "kills": len(kills),
        "useful_s": STEPS * step_s,
        "checkpoint_s": blocked_s / (STEPS / EVERY),
        "write_s": write_s,
        "restart_s": restart_s - step_s,
        "restart_own_s": own_s,
        "measured_s": measured_s,
        "predicted_s": predicted(restart_s - step_s),
        "error": predicted(restart_s - step_s) / measured_s - 1,
        "error_own": predicted(own_s) / measured_s - 1,
    }


def main() -> None:
    """Prints the tables and writes the JSON."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        write_dataset(site / "shards" / "squares")
        killed = worker_killed(site)
        back = {name: statistics.median(values) for name, values in killed.items()}
        figures: dict[str, Any] = {"worker_killed_s": {**back, "each": killed}}
        figures["model"] = modelled(site, back["ours"])
        if why_not():
            print(f"left out, {why_not()}: node lost, node taken away")
        else:
            figures["node_lost_s"] = node_lost(site)
            figures["node_taken_away_steps"] = node_taken_away(site)
    shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)
    print(f"{'':42}{'ours':>8}{'bare Ray Train':>16}")
    rows = {
        "worker_killed_s": "worker killed, s to the first step",
        "node_lost_s": "node lost, s to the first step",
        "node_taken_away_steps": "node taken away, steps done again",
    }
    for name, label in rows.items():
        if name in figures:
            print(f"{label:42}{figures[name]['ours']:8.1f}{figures[name]['bare']:16.1f}")
    model = figures["model"]
    print(
        f"{model['kills']} kills in {model['useful_s']:.0f} s of steps take "
        f"{model['measured_s']:.1f} s; "
        f"goodput.replay says {model['predicted_s']:.1f} s ({model['error']:+.1%}; "
        f"{model['error_own']:+.1%} with the run's own restarts)"
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
