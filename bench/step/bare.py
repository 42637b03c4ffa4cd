"""A plain PyTorch loop over clips that lie decoded in memory: prints its seconds a step as JSON.

    python bench/step/bare.py DATASET WIDTH GLOBAL_BATCH STEPS WINDOWS

Under torchrun the workers share the batch, over gloo, as PyTorch's tutorial for
DistributedDataParallel has it. One thread each. The seconds are of windows of STEPS steps.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist  # noqa: TID251 - it is what ours is held against
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.vgan import Discriminator, Generator, VganConfig
from orchestrator.loop import to_video
from shards.read import Reader, Slice, open_dataset


def main() -> None:
    """Trains; rank 0 prints {"wall_s", "cpu_s": of its process}, seconds a step by window."""
    dataset, (width, batch, steps, windows) = sys.argv[1], map(int, sys.argv[2:])
    torch.set_num_threads(1)
    rank, size = 0, 1
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
        rank, size = dist.get_rank(), dist.get_world_size()
    slice_ = Slice(rank=rank, world_size=size, global_batch=batch)
    reader = Reader(open_dataset(dataset), seed=0, slice=slice_, threads=1)
    batches = reader.batches(0)
    clips = [next(batches).video_bthwc for _ in range(8)]
    batches.close()
    step = stepper(VganConfig(width=width), clips, size)
    figures: dict[str, list[float]] = {"wall_s": [], "cpu_s": []}
    for window in range(windows):
        started, cpu = time.perf_counter(), time.process_time()
        for n in range(steps):
            step(window * steps + n)
        figures["wall_s"].append((time.perf_counter() - started) / steps)
        figures["cpu_s"].append((time.process_time() - cpu) / steps)
    if rank == 0:
        print(json.dumps({name: values[1:] for name, values in figures.items()}))
    if size > 1:
        dist.destroy_process_group()


def stepper(config: VganConfig, clips: list[Any], size: int) -> Callable[[int], None]:
    """What takes step n of the training."""
    torch.manual_seed(0)
    generator, discriminator = Generator(config), Discriminator(config.width)
    g_call: nn.Module = generator
    d_call: nn.Module = discriminator
    if size > 1:  # without buffers: two forwards before a backward share batch-norm's
        g_call = DistributedDataParallel(generator, forward_sync_buffers=False)
        d_call = DistributedDataParallel(discriminator, forward_sync_buffers=False)
    adam_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real_label = torch.zeros(len(clips[0]), dtype=torch.long)

    def step(n: int) -> None:
        real = to_video(clips[n % len(clips)], torch.device("cpu"))
        made = g_call(torch.randn(len(real), config.latent))
        loss_d = F.cross_entropy(d_call(real), real_label)
        loss_d = loss_d + F.cross_entropy(d_call(made["sample"].detach()), 1 - real_label)
        adam_d.zero_grad()
        loss_d.backward()  # type: ignore[no-untyped-call]
        adam_d.step()
        discriminator.requires_grad_(False)
        loss_g = F.cross_entropy(discriminator(made["sample"]), real_label)
        loss_g = loss_g + config.mask_lambda * made["mask"].mean()
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        discriminator.requires_grad_(True)

    return step


if __name__ == "__main__":
    main()
