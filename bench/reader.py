"""Reader speed beside the peers', on the same clips, in one run: `python bench/reader.py`.

Every loader runs alone in one process and decodes with the same decoder; ours uses one thread here.
"cold" is the first epoch, of files that are not in the page cache; "warm" is what follows.
"bare decoder" decodes and "bare copy" copies from memory; "bare read" is the system call alone,
"checked read" with the checksum, "mapped copy" from mapped files: the parts that raw clips cost.
"pixels kept" is ours with the cache of decoded clips. Last, JPEG by one thread, two threads, and
two processes of one thread each.
Peers live in environments of their own below var/bench-venvs, made on the first run; one that
cannot be installed is named and left out. About 4 minutes when they are there.
Options: --clips N, --seconds S per measurement, --rounds R (the median is kept), --no-install.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from shards.bench import measure
from shards.manifest import MANIFEST, ClipFormat, Manifest, Shard
from shards.read import Reader, Slice, open_dataset
from shards.tarfmt import format_index, write_tar

HERE = Path(__file__).parent
VAR = HERE.parent / "var"
RESULT = HERE / "results" / "reader.json"
PEERS = {
    "webdataset": ("webdataset==1.0.2",),
    "streaming": ("mosaicml-streaming==0.13.0",),
    "litdata": ("litdata==0.2.76", "torch==2.13.0"),
    "ray": ("ray[data]==2.60.0",),
}
OTHERS = {"datasets": ("datasets==5.2.0",)}  # environments of other benches
SHARDS = 8
HERE_TOO = {  # what runs in this environment: rows and their loaders
    "jpg": {"bare decoder": "bare", "ours": "ours", "pixels kept": "kept"},
    "u8": {
        "bare copy": "bare",
        "mapped copy": "mapped",
        "bare read": "pread",
        "checked read": "checked",
        "ours": "ours",
    },
}
SPLITS = {"1 thread": (1, 1), "2 threads": (1, 2), "2 processes": (2, 1)}


def make_clip(pictures: list[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A window that drifts over a photograph, with a little sensor noise: (32, 64, 64, 3)."""
    picture = pictures[rng.integers(len(pictures))]
    y, x = (int(rng.integers(16, side - 80)) for side in picture.shape[:2])
    dy, dx = rng.uniform(-0.5, 0.5, 2)
    frames = [
        picture[y + round(t * dy) :, x + round(t * dx) :][:64, :64].astype(np.int16)
        for t in range(32)
    ]
    noisy = np.stack(frames) + rng.integers(-3, 4, (32, 64, 64, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def make(root: Path, encoding: str, clips: int) -> None:
    """The bench's dataset: photographs of scikit-learn, seeded."""
    if (root / MANIFEST).exists():
        return
    rng = np.random.default_rng(0)
    pictures = [cv2.resize(image, (480, 320)) for image in load_sample_images().images]
    (root / "shards").mkdir(parents=True, exist_ok=True)
    shards = []
    for number in range(SHARDS):
        members = []
        for n in range(clips // SHARDS):
            clip = make_clip(pictures, rng)
            strip = clip.reshape(32 * 64, 64, 3)
            data = simplejpeg.encode_jpeg(strip, 95) if encoding == "jpg" else clip.tobytes()
            members.append((f"{number:02d}{n:04d}.{encoding}", bytes(data)))
        tar = io.BytesIO()
        index = format_index(write_tar(tar, members))
        shard = Shard(
            name=f"{number:06d}",
            samples=len(members),
            bytes=len(tar.getvalue()),
            sha256=hashlib.sha256(tar.getvalue()).hexdigest(),
            index_bytes=len(index),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )
        (root / shard.tar).write_bytes(tar.getvalue())
        (root / shard.index).write_bytes(index)
        shards.append(shard)
    clip_format = ClipFormat(frames=32, height=64, width=64, channels=3, fps=25, encoding=encoding)
    manifest = Manifest(clip=clip_format, shards=tuple(shards), recipe={}, counts={})
    (root / MANIFEST).write_bytes(manifest.to_json())


def forget(folder: Path) -> None:
    """Drops the files' clean pages from the page cache."""
    for path in folder.parent.glob(f"{folder.name}*/**/*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def imports_of(peer: str) -> str:
    """The import statements that the scripts in `peers/` execute for this peer."""
    found = {"import numpy, simplejpeg"}
    for script in (HERE / "peers").glob("*.py"):
        for part in ast.parse(script.read_text()).body:
            if isinstance(part, ast.FunctionDef) and part.name == peer:
                nodes = (node for node in ast.walk(part))
                found |= {
                    ast.unparse(node)
                    for node in nodes
                    if isinstance(node, ast.Import | ast.ImportFrom)
                }
    return "\n".join(sorted(found))


def python_of(peer: str, *, install: bool) -> str | None:
    """The peer's interpreter, its environment made when needed; None when that fails."""
    folder = VAR / "bench-venvs" / peer
    python = folder / "bin" / "python"
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ready = [str(python), "-c", imports_of(peer)]
    if python.exists() and not subprocess.run(ready, capture_output=True, env=alone).returncode:
        return str(python)
    if not install:
        return None
    venv.create(folder, with_pip=True, clear=True, symlinks=True)
    packages = (*OTHERS.get(peer, ()), *PEERS.get(peer, ()), "simplejpeg")
    pip = [str(python), "-m", "pip", "install", "-q", *packages]
    for command in (pip, ready):
        if subprocess.run(command, capture_output=True, env=alone, check=False).returncode:
            return None
    return str(python)


def run(command: list[str]) -> dict[str, dict[str, float]] | str:
    """The figures by state that the command prints last, or the last line of what went wrong."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        return "did not end within 300 s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["?"])[-1]
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return {state: figures[state] | {"first_s": figures["first_s"]} for state in ("cold", "warm")}


def commands(folder: Path, encoding: str, given: argparse.Namespace) -> dict[str, list[str] | None]:
    """What to run for each loader; None for one that could not be installed."""
    peer = [str(HERE / "peers" / "read.py")]
    rest = [str(folder), encoding, str(given.seconds)]
    found: dict[str, list[str] | None] = {
        name: [sys.executable, *peer, loader, *rest] for name, loader in HERE_TOO[encoding].items()
    }
    for name in PEERS:
        python = python_of(name, install=given.install)
        found[name] = [python, *peer, name, *rest] if python else None
    return found


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}


def measure_loaders(encoding: str, given: argparse.Namespace) -> dict[str, Any]:
    """Every loader's figures, by encoding, state and name; prints them."""
    folder = VAR / "bench" / f"reader-{given.clips}" / encoding
    make(folder, encoding, given.clips)
    found = commands(folder, encoding, given)
    rounds: dict[str, list[Any]] = {name: [] for name in found}
    for _ in range(given.rounds):  # in turn, so that a busy minute hits all alike
        for name, command in found.items():
            forget(folder)
            rounds[name].append(run(command) if command else "could not be installed")
    table: dict[str, Any] = {}
    for state in ("cold", "warm"):
        for name, results in rounds.items():
            if name.startswith("bare") and state == "cold":
                continue  # it has read everything before it begins
            wrong = next((result for result in results if isinstance(result, str)), None)
            result = wrong or median([result[state] for result in results])
            table[f"{encoding} {state} {name}"] = result
            show(encoding, state, name, result)
    return table


def measure_split(folder: Path, seconds: float) -> dict[str, dict[str, float]]:
    """JPEG clips with threads and with processes: {split: figures}, of all processes together."""
    spawn = multiprocessing.get_context("spawn")
    table = {}
    for name, (processes, threads) in SPLITS.items():
        barrier, results = spawn.Barrier(processes), spawn.SimpleQueue()
        arguments = (str(folder), threads, seconds, barrier, results)
        running = [spawn.Process(target=read_part, args=arguments) for _ in range(processes)]
        for process in running:
            process.start()
        figures = [results.get() for _ in running]
        for process in running:
            process.join()
        table[name] = {
            "clips_per_s": sum(each["clips_per_s"] for each in figures),
            "cpu_ms_per_clip": statistics.mean(each["cpu_s_per_clip"] for each in figures) * 1e3,
            "first_s": max(each["first_batch_s"] for each in figures),
        }
    return table


def read_part(folder: str, threads: int, seconds: float, barrier: Any, results: Any) -> None:
    """One process of a split; all of them begin together."""
    part = Slice(rank=0, world_size=1, global_batch=16)
    reader = Reader(open_dataset(folder), seed=0, slice=part, threads=threads)
    barrier.wait()
    results.put(measure(reader, seconds=seconds))


def main() -> None:
    """Measures, prints a table, writes it to bench/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1600)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-install", dest="install", action="store_false")
    given = parser.parse_args()
    # Wall-clock figures mean little on a machine that does other work; say whether it did.
    table: dict[str, Any] = {"load_average_at_start": os.getloadavg()[0], "cpus": os.cpu_count()}
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs before the start")
    print(f"{'':>6}{'':>6}  {'loader':<14}{'clips/s':>9}{'CPU ms/clip':>13}{'first clip s':>14}")
    for encoding in ("jpg", "u8"):
        table |= measure_loaders(encoding, given)
    folder = VAR / "bench" / f"reader-{given.clips}" / "jpg"
    rounds = [measure_split(folder, given.seconds) for _ in range(given.rounds)]
    for name in SPLITS:
        table[f"jpg warm {name}"] = median([each[name] for each in rounds])
        show("jpg", "warm", name, table[f"jpg warm {name}"])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(table, indent=1) + "\n")
    compare(table)


def compare(table: dict[str, Any]) -> None:
    """What the table comes to."""

    def ratio(ours: str, theirs: str) -> str:
        found = [table[f"{row}"] for row in (ours, theirs)]
        if any(isinstance(each, str) for each in found):
            return "?"
        by_cpu = found[1]["cpu_ms_per_clip"] / found[0]["cpu_ms_per_clip"]
        return f"{found[0]['clips_per_s'] / found[1]['clips_per_s']:.1f} (by CPU time {by_cpu:.1f})"

    clip = 32 * 64 * 64 * 3
    copied = table["u8 warm bare copy"]["clips_per_s"] * clip / 1e9
    print(f"bare copy: {copied:.1f} GB/s")
    for ours, theirs in (
        ("u8 warm ours", "u8 warm webdataset"),
        ("jpg warm pixels kept", "jpg warm webdataset"),
        ("jpg warm ours", "jpg warm bare decoder"),
        ("jpg warm 2 threads", "jpg warm 2 processes"),
    ):
        print(f"{ours} / {theirs}: {ratio(ours, theirs)}")


def show(encoding: str, state: str, name: str, result: dict[str, float] | str) -> None:
    """A line of the table."""
    if isinstance(result, str):
        print(f"{encoding:>6}{state:>6}  {name:<14}{result[:80]}", flush=True)
        return
    print(
        f"{encoding:>6}{state:>6}  {name:<14}{result['clips_per_s']:>9,.0f}"
        f"{result['cpu_ms_per_clip']:>13.3f}{result['first_s']:>14.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
