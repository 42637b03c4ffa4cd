"""What a checkpoint of the full-size VGAN blocks: written at once, or copied and written behind.

`python bench/checkpoint.py`. The same state, turn about, in one run; medians. "blocked" is the time
until training may go on.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from models.vgan import VganConfig
from orchestrator.checkpoint import BackgroundSaver, Checkpoints
from orchestrator.config import Budget, Optim
from orchestrator.loop import Loop, World
from shards.storage import LocalStore

ROUNDS = 5
RESULT = Path(__file__).parent / "results" / "checkpoint.json"


def main() -> None:
    """Prints the table and writes the JSON."""
    torch.set_num_threads(1)
    loop = Loop(
        VganConfig().build(),
        optim=Optim(),
        budget=Budget(steps=1),
        seed=0,
        global_batch=1,
        device=torch.device("cpu"),
        world=World(),
    )
    for phase, optimizer in loop.optimizers.items():
        for parameter in loop.learner.get_submodule(phase).parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # the moments exist from here on
    state = loop.state()
    at_once, behind, size = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(LocalStore(folder), keep=2)
        saver = BackgroundSaver(checkpoints)
        saver.save(0, state, {})  # the buffers are made once
        saver.wait()
        for step in range(1, 2 * ROUNDS, 2):
            started = time.perf_counter()
            size = checkpoints.save(step, state, {})
            at_once.append(time.perf_counter() - started)
            behind.append(saver.save(step + 1, state, {}))
            saver.wait()
    one, other = statistics.median(at_once), statistics.median(behind)
    print(f"full-size VGAN, {size / 2**20:.0f} MiB, median of {ROUNDS}")
    print(f"{'':10} {'blocked s':>10}")
    print(f"{'at once':10} {one:10.3f}")
    print(f"{'behind':10} {other:10.3f}   {one / other:.0f} times less")
    figures = {"mib": size / 2**20, "at_once_s": one, "behind_s": other, "ratio": one / other}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
