"""Which settings make the laptop-scale step fast on a CPU: `python bench/cpu_step.py`.

Two-stream VGAN, width 16, 16 clips from memory, the orchestrator's own loop, one thread unless said
otherwise. Each way is a process of its own; all take turns, and the median of the rounds stands.
CPU seconds are the figure to go by on a machine that does other work; wall seconds stand beside.
"x" is against the first row. "off by" is the larger relative difference of the first step's losses.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from step.subject import Subject, Variant

from orchestrator.config import Compute
from orchestrator.train import KEEP_FREED_MEMORY

WIDTH, BATCH, ROUNDS = 16, 16, 3
EXACT = Compute(precision="fp32", channels_last=False)
RESULT = Path(__file__).parent / "results" / "cpu_step.json"


@dataclass(frozen=True, kw_only=True)
class Way:
    """The loop's setting, the process's environment, torch's threads, whether oneDNN is used, and
    the steps that are timed."""

    compute: Compute = EXACT
    environment: dict[str, str] = field(default_factory=lambda: KEEP_FREED_MEMORY)
    threads: int = 1
    onednn: bool = True
    steps: int = 5


WAYS = {
    "fp32": Way(environment={}),
    "freed memory kept": Way(),
    "kept, no oneDNN": Way(onednn=False, steps=1),
    "kept, compile": Way(compute=Compute(precision="fp32", channels_last=False, compile=True)),
    "kept, channels-last": Way(compute=Compute(precision="fp32", channels_last=True)),
    "kept, bf16": Way(compute=Compute(precision="bf16", channels_last=False)),
    "kept, bf16 channels-last": Way(compute=Compute(precision="bf16", channels_last=True)),
    "kept, two threads": Way(threads=2),
}


def child(way: Way) -> None:
    """Prints what a step of `way` takes."""
    torch.set_num_threads(way.threads)
    torch.backends.mkldnn.enabled = way.onednn  # type: ignore[assignment]
    variant = Variant(precision=way.compute.precision, compute=way.compute)
    subject = Subject(variant, device="cpu", width=WIDTH, batch=BATCH, steps=way.steps)
    first = subject.first()
    subject.window()  # warms up
    before, started, cpu = _faults(), time.perf_counter(), time.process_time()
    subject.window()
    figures = {
        "cpu_s": (time.process_time() - cpu) / way.steps,
        "wall_s": (time.perf_counter() - started) / way.steps,
        "faults": (_faults() - before) / way.steps,
    }
    print(json.dumps(figures | {name: first[name] for name in ("d_loss", "g_loss")}))


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    """Measures, prints the table, writes the JSON."""
    if len(sys.argv) > 1:
        child(WAYS[sys.argv[1]])
        return
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            command = [sys.executable, __file__, name]
            done = subprocess.run(
                command,
                env=os.environ | way.environment,
                capture_output=True,
                text=True,
                check=True,
            )
            rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
    table = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in rounds.items()
    }
    base = next(iter(table.values()))
    print(f"{'':<26}{'CPU s':>8}{'x':>6}{'wall s':>8}{'x':>6}{'faults':>8}{'off by':>9}   a step")
    for name, row in table.items():
        row["off"] = max(abs(row[k] / base[k] - 1) for k in ("d_loss", "g_loss"))
        print(
            f"{name:<26}{row['cpu_s']:>8.3f}{base['cpu_s'] / row['cpu_s']:>6.2f}"
            f"{row['wall_s']:>8.3f}{base['wall_s'] / row['wall_s']:>6.2f}"
            f"{row['faults']:>8.0f}{row['off']:>9.1e}"
        )
    bf16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
    print(f"bf16 instructions on this CPU: {'yes' if bf16 else 'no'}")
    RESULT.write_text(json.dumps({"bf16_instructions": bf16, **table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
