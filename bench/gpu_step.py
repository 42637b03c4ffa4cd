"""What a training step costs on a GPU: `python bench/gpu_step.py`, one table, gpu_step.json.

Two-stream VGAN on 64x64x32 at full width, clips from memory. First the plain port's way of writing
the step (`step/plain.py`), then the orchestrator's own loop, one change at a time. Every variant is
a process of its own. TFLOP/s counts the operations that `orchestrator.cost` counts for our step,
for the plain one too, which does more of them for the same update; MFU is that over the dense peak
of the variant's precision in `orchestrator/hardware.json`. Every variant's losses must be finite,
and on the first step, from equal weights, clips and noise, agree with the loop in fp32: "off by" is
the larger relative difference of the two losses. Then torch's profiler says what is left.

Without a GPU it says so and measures nothing. To see it work on a CPU:
`python bench/gpu_step.py --device cpu --width 4 --batches 2 --steps 2`; that writes no file.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from step.kernels import ceilings, explain
from step.subject import REFERENCE, TOLERANCE, VARIANTS, Subject, measure

from models.vgan import VganConfig
from orchestrator.cost import step_cost
from orchestrator.hardware import machines

RESULT = Path(__file__).parent / "results" / "gpu_step.json"
Table = dict[str, list[dict[str, Any]]]


def child(given: argparse.Namespace) -> None:
    """What a process of its own does: prints one JSON object a batch size."""
    variant = VARIANTS[given.one]
    if given.device == "cpu":
        torch.set_num_threads(1)  # more of them wait for each other on a machine that is in use
    for batch in given.batches:
        try:
            if variant.graphs and given.device == "cpu":
                raise NotImplementedError("CUDA graphs need a GPU")
            subject = Subject(
                variant, device=given.device, width=given.width, batch=batch, steps=given.steps
            )
            row = profiled(subject) if given.profile else measure(subject)
        except (torch.cuda.OutOfMemoryError, NotImplementedError) as error:
            row = {"batch": batch, "failed": str(error).split(". ")[0]}
        print(json.dumps(row), flush=True)
        torch.compiler.reset()  # else the next size is compiled for any size
        gc.collect()
        torch.cuda.empty_cache()


def profiled(subject: Subject) -> dict[str, Any]:
    """What the time of `subject`'s steps goes to."""
    subject.first()
    subject.window()
    figures = explain(subject.window, subject.steps, subject.device)
    return figures | {"ceilings": ceilings(subject.device)}


def ask(name: str, given: argparse.Namespace, batches: list[int], *more: str) -> list[Any]:
    """What the process for the variant `name` printed, and one line of why it ended early."""
    command = [sys.executable, __file__, "--one", name, "--device", given.device, *more]
    command += ["--width", str(given.width), "--steps", str(given.steps), "--batches"]
    done = subprocess.run([*command, *map(str, batches)], capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        reason = [line for line in done.stderr.splitlines() if line.strip()]
        rows.append({"batch": None, "failed": (reason or ["no message"])[-1][:200]})
    return rows


def peaks_of(device: str) -> dict[str, float]:
    """The dense peaks by precision that the table has for a device name; empty without any."""
    words = device.lower().replace("-", " ").split()
    for machine in machines().values():
        if machine.accelerator.split("-")[0] in words:
            return machine.peak_tflops
    return {}


def judge(table: Table, flops: float, peaks: dict[str, float]) -> bool:
    """Adds rates, ratios and the check to every row; whether all checks passed."""
    good = True
    plain = {row["batch"]: row.get("step_s") for row in table["plain"]}
    exact = {row["batch"]: row.get("first") for row in table[REFERENCE]}
    for name, rows in table.items():
        precision = VARIANTS[name].precision
        for row in (r for r in rows if "failed" not in r):
            batch, step_s = row["batch"], row["step_s"]
            row["clips_per_s"] = batch / step_s
            row["tflops"] = batch * flops / step_s / 1e12
            row["mfu"] = row["tflops"] / peaks[precision] if precision in peaks else None
            row["ratio"] = plain[batch] / step_s if plain.get(batch) else None
            wanted = exact.get(batch)
            row["off"] = wanted and max(
                abs(row["first"][k] - wanted[k]) / abs(wanted[k]) for k in wanted
            )
            row["agrees"] = row["finite"] and (row["off"] or 0.0) <= TOLERANCE[precision]
            good = good and row["agrees"]
    return good


def show(table: Table) -> None:
    """Prints the table."""

    def cell(value: float | None, form: str, width: int) -> str:
        return f"{'-' if value is None else format(value, form):>{width}}"

    print(
        f"{'variant':<27}{'batch':>6}{'clips/s':>10}{'ms':>9}{'TFLOP/s':>9}{'MFU':>7}"
        f"{'GiB':>7}{'x plain':>8}{'off by':>9}"
    )
    for name, rows in table.items():
        for row in rows:
            if "failed" in row:
                print(f"{name:<27}{row['batch'] or '':>6}  {row['failed']}")
                continue
            print(
                f"{name:<27}{row['batch']:>6}{row['clips_per_s']:>10.1f}{row['step_s'] * 1e3:>9.2f}"
                f"{row['tflops']:>9.2f}"
                + cell(row["mfu"], ".1%", 7)
                + cell(row["peak_gib"], ".2f", 7)
                + cell(row["ratio"], ".2f", 8)
                + cell(row["off"], ".1e", 9)
                + ("" if row["agrees"] else "  DISAGREES")
            )


def fastest(table: Table) -> tuple[float, int, str] | None:
    """(clips/s, batch, variant) of the best row of ours that agrees."""
    rows = [
        (row["clips_per_s"], row["batch"], name)
        for name, rows in table.items()
        for row in rows
        if row.get("agrees") and VARIANTS[name].compute is not None
    ]
    return max(rows, default=None)


def arguments() -> argparse.Namespace:
    """The command line; --one and --profile are for the processes that it starts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--steps", type=int, default=10, help="in each of the timed windows")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Measures, prints, writes; 1 when a variant computes something else, or none ran."""
    given = arguments()
    if given.one:
        child(given)
        return 0
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU on this machine, nothing measured; --device cpu --width 4 tries it out")
        return 0
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    peaks = peaks_of(name)
    config = VganConfig(width=given.width)
    flops = step_cost(config.build, config.clip_shape).flops
    print(f"{name}, torch {torch.__version__}, width {given.width}, {flops / 1e9:.3g} GFLOP a clip")
    wanted = [v for v in VARIANTS if v in {"plain", REFERENCE, *given.variants}]
    table = {variant: ask(variant, given, given.batches) for variant in wanted}
    good = judge(table, flops, peaks)
    show(table)
    best = fastest(table)
    if best is None:
        return 1
    clips_per_s, batch, variant = best
    left = ask(variant, given, [batch], "--profile")[0]
    print(f"\nThe fastest, {variant} with {batch} clips, under the profiler:")
    print("\n".join(left["lines"] if "lines" in left else [left["failed"]]))
    facts = {"device": name, "torch": torch.__version__, "gflop_per_clip": flops / 1e9}
    facts |= {"width": given.width, "peak_tflops": peaks, "table": table}
    facts["best"] = {"variant": variant, "batch": batch, "clips_per_s": clips_per_s, "left": left}
    if given.device == "cuda":
        RESULT.write_text(json.dumps(facts, indent=1) + "\n")
    return 0 if good and "lines" in left else 1


if __name__ == "__main__":
    sys.exit(main())
