"""VGAN's step as plain PyTorch ports write it, written anew: what ours is held against.

Its habits are those of public ports (batsa003/videogan's main.py and the DCGAN example that they
follow): float clips in pageable memory, copied while the program waits; Adam as `torch.optim` gives
it; the generator run again for its own step; the discriminator's gradients computed in that step
too, and thrown away; `.item()` of both losses at every step. The networks are ours, so that both
sides compute the same layers and start from the same weights.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.vgan import Vgan


class PlainTrainer:
    """Trains `learner`'s two networks on `device`."""

    def __init__(self, learner: Vgan, device: torch.device) -> None:
        self.device = device
        self.mask_lambda = learner.config.mask_lambda
        self.generator = learner.generator.to(device)
        self.discriminator = learner.discriminator.to(device)
        self.criterion = nn.CrossEntropyLoss()
        betas = (0.5, 0.999)
        self.d_optim = torch.optim.Adam(self.discriminator.parameters(), lr=2e-4, betas=betas)
        self.g_optim = torch.optim.Adam(self.generator.parameters(), lr=2e-4, betas=betas)

    def step(self, clips: Tensor, noise: Tensor) -> dict[str, float]:
        """clips: float (B, 3, T, H, W) in [-1, 1] in main memory; noise: (B, latent), likewise."""
        videos = clips.to(self.device)
        z = noise.to(self.device)
        real = torch.zeros(len(videos), dtype=torch.long, device=self.device)
        fake = torch.ones(len(videos), dtype=torch.long, device=self.device)

        self.d_optim.zero_grad()
        d_real_loss = self.criterion(self.discriminator(videos), real)
        fake_videos = self.generator(z)["sample"]
        d_fake_loss = self.criterion(self.discriminator(fake_videos.detach()), fake)
        d_loss = d_real_loss + d_fake_loss
        d_loss.backward()
        self.d_optim.step()

        self.g_optim.zero_grad()
        made = self.generator(z)
        g_loss = self.criterion(self.discriminator(made["sample"]), real)
        g_loss = g_loss + self.mask_lambda * made["mask"].mean()
        g_loss.backward()
        self.g_optim.step()
        return {"d_loss": d_loss.item(), "g_loss": g_loss.item()}


def as_a_loader_gives(video_bthwc: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, T, H, W, C) to float (B, C, T, H, W) in [-1, 1], contiguous, pageable."""
    tensor = torch.from_numpy(video_bthwc).permute(0, 4, 1, 2, 3).float()
    return tensor.div_(127.5).sub_(1.0).contiguous()
