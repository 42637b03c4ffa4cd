"""Samples repeated, lost, starts refused, under kills: `python bench/exactly_once.py`.

An epoch is read by 1 to 64 ranks and killed after a random number of steps, some of them behind the
last checkpoint; the next start resumes from that checkpoint, as the loader's documentation says.
Once with the same number of ranks throughout, once with another after every kill. Counted over the
epoch: samples trained on more than once, never, and starts that the loader refused. Peers live in
environments of their own (see bench/reader.py); one that cannot be installed is left out.
Options: --epochs N of each kind, --seed S.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from peers.synthetic import answer, write
from reader import HERE, VAR, python_of

from shards.manifest import ClipFormat

RESULT = HERE / "results" / "exactly_once.json"
CLIP = ClipFormat(frames=1, height=8, width=8, channels=3, fps=25.0, encoding="u8")
SIZES = [50 - n % 3 for n in range(64)]  # 3,137 samples, which no world size divides
STEPS = 49  # of 64 samples, and a short one
NONE = {  # why: neither documentation has a way to go on inside an epoch
    "webdataset": "none: an epoch interrupted cannot be continued",
    "ray data": "none in the open-source version",
}

Plan = list[tuple[int, int, int]]


def contents() -> Iterator[list[tuple[str, bytes]]]:
    """Shard by shard, small clips that begin with their number."""
    numbers = itertools.count()
    for samples in SIZES:
        members = []
        for number in itertools.islice(numbers, samples):
            clip = np.zeros(CLIP.shape, dtype=np.uint8)
            clip.reshape(-1)[:4] = np.frombuffer(number.to_bytes(4, "little"), dtype=np.uint8)
            members.append((f"{number:06d}.u8", clip.tobytes()))
        yield members


def plans(epochs: int, rng: random.Random, *, changing: bool) -> list[Plan]:
    """Epochs of some kills, then a last start that runs to the end.

    Three more world sizes follow, for a loader that refuses the last one.
    """
    found = []
    for _ in range(epochs):
        fixed = rng.randint(1, 64)
        cuts = sorted(rng.sample(range(1, STEPS), rng.randint(2, 6)))
        kept = [stop - start for start, stop in zip([0, *cuts], cuts, strict=False)]
        plan = [
            (rng.randint(1, 64) if changing else fixed, steps, rng.randint(0, 3)) for steps in kept
        ]
        last = [rng.randint(1, 64), 32, 8, 1] if changing else [fixed]
        found.append(plan + [(world, 1_000_000, 0) for world in last])
    return found


def main() -> None:
    """Counts, prints a table, writes it to bench/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = VAR / "bench" / "exactly-once" / "set"
    shutil.rmtree(folder.parent, ignore_errors=True)
    write(folder, CLIP, contents())
    table: dict[str, Any] = {"seed": given.seed, **NONE}
    print(f"{'world size':<11}{'loader':<12}{'repeated':>9}{'lost':>7}{'refused':>9}  of samples")
    for changing in (False, True):
        kind = "changing" if changing else "the same"
        found = plans(given.epochs, random.Random(given.seed), changing=changing)
        for name in ("ours", "streaming", "litdata", "datasets"):
            python = sys.executable if name == "ours" else python_of(name, install=True)
            result: dict[str, Any] | str = "could not be installed"
            if python:
                command = [python, str(HERE / "peers" / "resume.py"), name, str(folder)]
                result = answer(command, json.dumps(found), TQDM_DISABLE="1", HF_HUB_OFFLINE="1")
            table[f"{kind} {name}"] = result
            if isinstance(result, str):
                print(f"{kind:<11}{name:<12}{result[:70]}", flush=True)
                continue
            print(
                f"{kind:<11}{name:<12}{result['repeated']:>9,}{result['lost']:>7,}"
                f"{result['refused']:>9,}  {result['samples'] * result['epochs']:,}",
                flush=True,
            )
            for reason, times in result["reasons"].items():
                print(f"{'':<23}{times} x {reason[:90]}", flush=True)
    for name, reason in NONE.items():
        print(f"{'either':<11}{name:<12}{reason}")
    RESULT.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
