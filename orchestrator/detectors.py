"""Pictures of what a model's hidden units fire on, in a dataset's clips (VGAN, Figure 6)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.units import Firing, lit, strongest
from orchestrator import pictures
from orchestrator.clips import clips_of, watched
from orchestrator.loop import to_video
from shards.dataset import Dataset

LAYER, UNITS, CLIPS = 3, 8, 6  # the paper's layer; rows and columns of the picture
HOW = (
    f"units of the detectors' layer {LAYER} whose strongest clips stand out most from all, by row, "
    "with the clips that they fire on most; what such an activation cannot see is dark"
)


def of_units(detectors: nn.Sequential, dataset: Dataset, most: int) -> dict[str, bytes]:
    """`units.png`, and of units that look at clips `units.gif`, by name, from at most `most` clips.

    detectors: a learner's, of the dataset's clips or of their first frames; on any device.
    """
    device = next(detectors.parameters()).device
    of_frames = isinstance(detectors[0], nn.Conv2d)

    def seen() -> Iterator[Tensor]:
        """The clips again in the same order, as the detectors take them."""
        for part in clips_of(dataset, most):
            video_bcthw = to_video(part.video_nthwc, device)
            yield video_bcthw[:, :, 0] if of_frames else video_bcthw

    count = min(most, dataset.samples)
    batches = watched(seen(), "units", count)
    found = strongest(detectors, batches, layer=LAYER, top=CLIPS, units=UNITS)
    wanted = {firing.clip for firings in found.values() for firing in firings}
    shown: dict[int, Tensor] = {}
    first = 0
    for batch in seen():
        shown |= {n: batch[n - first].cpu() for n in wanted if first <= n < first + len(batch)}
        first += len(batch)

    def row(firings: list[Firing]) -> Tensor:
        """(N, 3, T, H, W), T = 1 for frames."""
        clips = torch.stack([lit(shown[firing.clip], firing.region) for firing in firings])
        return clips[:, :, None] if of_frames else clips

    def still(firings: list[Firing]) -> Tensor:
        """(N, 3, 1, H, W): of a clip the frame in the middle of what the unit fires on."""
        if of_frames:
            return row(firings)
        times = [firing.region[0] for firing in firings]
        middles = [(time.start + time.stop) // 2 for time in times]
        clips = row(firings)
        return torch.stack([clips[n, :, t : t + 1] for n, t in enumerate(middles)])

    names = {f"unit {unit}": firings for unit, firings in found.items()}
    out = {"units.png": pictures.still_rows({n: still(f) for n, f in names.items()}, clips=CLIPS)}
    if not of_frames:
        rows = {name: row(firings) for name, firings in names.items()}
        out["units.gif"] = pictures.animated_rows(rows, clips=CLIPS)
    return out
