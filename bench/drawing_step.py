"""How fast Sync-DRAW trains against the plain way of writing it: `python bench/drawing_step.py`.

Videos a second of a training step (forward, backward, Adam) at full size, one thread, on two-digit
clips from memory. Plain: a window at a time, frame by frame, as the equations read. Ours: all
frames' filterbanks at once, and each look two matrix products. Compiled: torch.compile of ours. All
have the same weights and noise; "off by" is the relative difference of the loss from plain's. Ways
take turns, medians stand. With a GPU: --device cuda --batch 100.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models import attention
from models.drawing import Drawing, gaussian_kl
from models.sync_draw import SyncDrawConfig, cross_entropy
from shards.bouncing import Bouncing, find_glyphs

RESULT = Path(__file__).parent / "results" / "drawing_step.json"
ROUNDS = 5


def plain(drawing: Drawing, video: Tensor, noise: Tensor) -> Tensor:
    """The loss of each video (B,), with a window, a frame and a stroke at a time."""
    c = drawing.config
    canvas = torch.zeros_like(video)
    encoded, decoded = drawing.encoder.start(video), drawing.decoder.start(video)
    kl = video.new_zeros(len(video))
    for t in range(c.strokes):
        error = video - canvas.sigmoid()
        parameters = drawing.reading.parameters_of(decoded[0]).view(len(video), 5, c.frames)
        seen = []
        for n in range(c.frames):
            at = attention.window(parameters[:, None, :, n], c.grid, c.size, c.size)
            for picture in (video, error):
                seen.append(attention.read(picture[:, n : n + 1], at).flatten(1))
        # The order of the patches is ours: of each frame the picture's, then the error's.
        encoded = drawing.encoder(torch.cat([*seen, decoded[0]], 1), encoded)
        mu, log_sigma = drawing.posterior(encoded[0]).chunk(2, 1)
        zero = torch.zeros_like(mu)
        kl = kl + gaussian_kl(mu, log_sigma, zero, zero).sum(1)
        decoded = drawing.decoder(mu + log_sigma.exp() * noise[:, t], decoded)
        patches = drawing.patch(decoded[0]).view(len(video), c.frames, c.channels, c.grid, c.grid)
        parameters = drawing.writing.parameters_of(decoded[0]).view(len(video), 5, c.frames)
        strokes = []
        for n in range(c.frames):
            at = attention.window(parameters[:, None, :, n], c.grid, c.size, c.size)
            strokes.append(attention.write(patches[:, n : n + 1], at))
        canvas = canvas + torch.cat(strokes, 1)
    return cross_entropy(canvas, video) + kl


def ours(drawing: Drawing, video: Tensor, noise: Tensor) -> Tensor:
    """The same by the model itself."""
    parts = drawing(video, noise)
    return cross_entropy(parts["canvas"], video) + parts["kl_b"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    torch.manual_seed(0)
    config = SyncDrawConfig()
    first = config.build().drawing.to(device)
    glyphs = find_glyphs(None)
    clips = [Bouncing(digits=2).clip(n, glyphs)[0] for n in range(given.batch)]
    video = torch.stack([torch.from_numpy(clip) for clip in clips]).permute(0, 1, 4, 2, 3) / 255
    video = video.to(device)
    noise = torch.randn(given.batch, config.strokes, config.latent, device=device)
    ways: dict[str, tuple[Drawing, Callable[[Drawing, Tensor, Tensor], Tensor]]] = {
        "plain": (copy.deepcopy(first), plain),
        "ours": (copy.deepcopy(first), ours),
        "compiled": (copy.deepcopy(first), ours),
    }
    ways["compiled"][0].compile()
    with torch.no_grad():
        losses = {
            name: loss(drawing, video, noise).mean().item()
            for name, (drawing, loss) in ways.items()
        }
    steps = {name: _step(*way, video, noise) for name, way in ways.items()}
    for step in steps.values():
        step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            taken[name].append(step())
    rows = {
        name: {
            "videos_per_s": given.batch / statistics.median(seconds),
            "off_by": abs(losses[name] / losses["plain"] - 1),
        }
        for name, seconds in taken.items()
    }
    print(f"{'':12}{'videos/s':>10}{'x plain':>9}{'off by':>9}")
    for name, row in rows.items():
        times = row["videos_per_s"] / rows["plain"]["videos_per_s"]
        print(f"{name:12}{row['videos_per_s']:10.1f}{times:9.2f}{row['off_by']:9.1e}")
    RESULT.write_text(json.dumps({"device": str(device), "batch": given.batch, **rows}, indent=1))


def _step(
    drawing: Drawing,
    loss: Callable[[Drawing, Tensor, Tensor], Tensor],
    video: Tensor,
    noise: Tensor,
) -> Callable[[], float]:
    """One training step, and the seconds that it took."""
    optimiser = torch.optim.Adam(drawing.parameters(), lr=1e-3, fused=True)

    def step() -> float:
        started = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        loss(drawing, video, noise).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if video.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


if __name__ == "__main__":
    main()
