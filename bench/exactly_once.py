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
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from reader import HERE, VAR, python_of

from shards.manifest import MANIFEST, ClipFormat, Manifest, Shard
from shards.tarfmt import format_index, write_tar

RESULT = HERE / "results" / "exactly_once.json"
CLIP = ClipFormat(frames=1, height=8, width=8, channels=3, fps=25.0, encoding="u8")
SIZES = [50 - n % 3 for n in range(64)]  # 3,137 samples, which no world size divides
STEPS = 49  # of 64 samples, and a short one
NONE = {  # why: neither documentation has a way to go on inside an epoch
    "webdataset": "none: an epoch interrupted cannot be continued",
    "ray data": "none in the open-source version",
}

Plan = list[tuple[int, int, int]]


def make(root: Path) -> None:
    """Small clips that begin with their number."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "shards").mkdir(parents=True)
    shards, first = [], 0
    for name, samples in enumerate(SIZES):
        members = []
        for i in range(first, first + samples):
            clip = np.zeros(CLIP.shape, dtype=np.uint8)
            clip.reshape(-1)[:4] = np.frombuffer(i.to_bytes(4, "little"), dtype=np.uint8)
            members.append((f"{i:06d}.u8", clip.tobytes()))
        first += samples
        tar = io.BytesIO()
        index = format_index(write_tar(tar, members))
        shard = Shard(
            name=f"{name:06d}",
            samples=samples,
            bytes=len(tar.getvalue()),
            sha256=hashlib.sha256(tar.getvalue()).hexdigest(),
            index_bytes=len(index),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        (root / shard.tar).write_bytes(tar.getvalue())
        (root / shard.index).write_bytes(index)
        shards.append(shard)
    manifest = Manifest(clip=CLIP, shards=tuple(shards), recipe={}, counts={})
    (root / MANIFEST).write_bytes(manifest.to_json())


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


def count(python: str, name: str, folder: Path, given: list[Plan]) -> dict[str, Any] | str:
    """The counts of one loader, or the last line of what went wrong."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    environment.update(TQDM_DISABLE="1", HF_HUB_OFFLINE="1")
    try:
        done = subprocess.run(
            [python, str(HERE / "peers" / "resume.py"), name, str(folder)],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "did not end within 300 s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["?"])[-1]
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def main() -> None:
    """Counts, prints a table, writes it to bench/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = VAR / "bench" / "exactly-once" / "set"
    shutil.rmtree(folder.parent, ignore_errors=True)
    make(folder)
    table: dict[str, Any] = {"seed": given.seed, **NONE}
    print(f"{'world size':<11}{'loader':<12}{'repeated':>9}{'lost':>7}{'refused':>9}  of samples")
    for changing in (False, True):
        kind = "changing" if changing else "the same"
        found = plans(given.epochs, random.Random(given.seed), changing=changing)
        for name in ("ours", "streaming", "litdata", "datasets"):
            python = sys.executable if name == "ours" else python_of(name, install=True)
            result = count(python, name, folder, found) if python else "could not be installed"
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
