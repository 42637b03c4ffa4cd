"""What the orchestrator costs a step: the same model in a bare PyTorch loop, in turns, in one run.

`python bench/overhead.py`. Laptop-scale two-stream VGAN, one worker, one thread, CPU. Bare: a plain
loop over clips that lie decoded in memory. Ours: `python -m orchestrator.run` with everything it
does - Ray Train, shards read and decoded, checkpoints, tracking. The figure is the median of the
seconds a step takes, over windows of 10 steps; the first window of each is left out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from models.vgan import Discriminator, Generator, VganConfig
from orchestrator.loop import to_video
from shards.read import Reader, Slice, open_dataset

WIDTH, BATCH, WINDOW, WINDOWS, ROUNDS = 16, 16, 10, 5, 2
RESULT = Path(__file__).parent / "results" / "overhead.json"


def bare(dataset: str) -> list[float]:
    """Seconds a step of a plain loop, one figure a window."""
    torch.set_num_threads(1)
    config = VganConfig(width=WIDTH)
    reader = Reader(
        open_dataset(dataset),
        seed=0,
        slice=Slice(rank=0, world_size=1, global_batch=BATCH),
        threads=1,
    )
    batches = reader.batches(0)
    clips = [next(batches).video_bthwc for _ in range(8)]
    batches.close()
    generator, discriminator = Generator(config), Discriminator(WIDTH)
    adam_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real_label = torch.zeros(BATCH, dtype=torch.long)
    seconds = []
    for window in range(WINDOWS):
        started = time.perf_counter()
        for n in range(WINDOW):
            real = to_video(clips[(window + n) % len(clips)], torch.device("cpu"))
            made = generator(torch.randn(BATCH, config.latent))
            loss_d = F.cross_entropy(discriminator(real), real_label)
            loss_d = loss_d + F.cross_entropy(
                discriminator(made["sample"].detach()), 1 - real_label
            )
            adam_d.zero_grad()
            loss_d.backward()
            adam_d.step()
            discriminator.requires_grad_(False)
            loss_g = F.cross_entropy(discriminator(made["sample"]), real_label)
            loss_g = loss_g + config.mask_lambda * made["mask"].mean()
            adam_g.zero_grad()
            loss_g.backward()
            adam_g.step()
            discriminator.requires_grad_(True)
        seconds.append((time.perf_counter() - started) / WINDOW)
    return seconds[1:]


def ours(dataset: Path) -> list[float]:
    """The same of a run of the orchestrator, as it tells MLflow."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        site = {"SHARDS_ROOT": str(dataset.parent), "RUNS_ROOT": folder, "MLFLOW_TRACKING_URI": uri}
        assignments = [
            f"data.name={dataset.name}",
            f"budget.steps={WINDOW * WINDOWS}",
            f"budget.samples_every={WINDOW * WINDOWS}",
            f"budget.checkpoint_every={WINDOW * 2}",
            "resources.num_workers=1",
        ]
        command = [sys.executable, "-m", "orchestrator.run", "vgan_unfiltered", *assignments]
        subprocess.run(
            [*command, "--scale", "laptop"],
            env=os.environ | site,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        client = MlflowClient(uri)
        run = client.search_runs([client.get_experiment_by_name("vgan").experiment_id])[0]
        history = client.get_metric_history(run.info.run_id, "sys/step_s")
        return [m.value for m in sorted(history, key=lambda m: m.step)][1:]


def main() -> None:
    """Prints the table and writes the JSON."""
    dataset = Path(os.environ.get("SHARDS_ROOT", "var/shards")).absolute() / "demo"
    if not dataset.exists():
        subprocess.run([sys.executable, "-m", "shards.demo", str(dataset)], check=True)
    figures: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(ROUNDS):
        figures["bare"] += bare(str(dataset))
        figures["ours"] += ours(dataset)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratio = medians["bare"] / medians["ours"]
    print(f"{'':6} {'s a step':>9} {'clips/s':>8}")
    for name, value in medians.items():
        print(f"{name:6} {value:9.4f} {BATCH / value:8.1f}")
    print(f"throughput against the bare loop: {ratio:.3f}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**medians, "throughput_ratio": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
