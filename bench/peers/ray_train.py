"""Bare Ray Train, written as its documentation writes it, for bench/recovery.py.

    python bench/peers/ray_train.py FOLDER --steps N --every K --workers 1..2

The two-stream VGAN on clips that lie in memory; a checkpoint is reported every K steps, and after a
failure training goes on from the last one. Nothing of Ray is tuned. Beyond the documentation's
example there is one line of JSON for every step done, in FOLDER/steps.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.nn.functional as F
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from models.vgan import Discriminator, Generator, VganConfig


def train_func(config: dict[str, Any]) -> None:
    """The loop of one worker."""
    torch.set_num_threads(1)
    model = VganConfig(width=config["width"])
    # Without it DDP overwrites batch norm's statistics between a GAN's two forwards.
    ddp = {"broadcast_buffers": False}
    networks = [Generator(model), Discriminator(config["width"])]
    generator, discriminator = (
        ray.train.torch.prepare_model(network, parallel_strategy_kwargs=ddp) for network in networks
    )
    adam_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    # Unwrapped, since a single worker's networks are not.
    bare = {network: getattr(network, "module", network) for network in (generator, discriminator)}
    parts = {
        "generator": bare[generator],
        "discriminator": bare[discriminator],
        "g": adam_g,
        "d": adam_d,
    }
    start = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / "state.pt")
        start = state["step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    context = ray.train.get_context()
    batch = config["batch"] // context.get_world_size()
    clips = torch.rand(8, batch, 3, 32, 64, 64) * 2 - 1
    label = torch.zeros(batch, dtype=torch.long)
    for step in range(start, config["steps"]):
        made = generator(torch.randn(batch, model.latent))
        loss_d = F.cross_entropy(discriminator(clips[step % 8]), label)
        loss_d = loss_d + F.cross_entropy(discriminator(made["sample"].detach()), 1 - label)
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        loss_g = F.cross_entropy(discriminator(made["sample"]), label)
        loss_g = loss_g + model.mask_lambda * made["mask"].mean()
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        done = step + 1
        if context.get_world_rank() == 0:
            line = {"step": done, "at": time.time(), "pid": os.getpid()}
            with (Path(config["folder"]) / "steps.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        if done % config["every"] == 0:
            with tempfile.TemporaryDirectory() as folder:
                saved = None
                if context.get_world_rank() == 0:
                    state = {name: part.state_dict() for name, part in parts.items()}
                    torch.save({"step": done, **state}, Path(folder) / "state.pt")
                    saved = Checkpoint.from_directory(folder)
                ray.train.report({"loss": loss_g.item()}, checkpoint=saved)


def main() -> None:
    """Trains to the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--workers", required=True, help="N or MIN..MAX")
    given = parser.parse_args()
    low, dots, high = given.workers.partition("..")
    folder = str(Path(given.folder).absolute())
    trainer = TorchTrainer(
        train_func,
        train_loop_config={**vars(given), "folder": folder},
        scaling_config=ScalingConfig(num_workers=(int(low), int(high)) if dots else int(low)),
        run_config=RunConfig(
            name="bare", storage_path=folder, failure_config=FailureConfig(max_failures=-1)
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
