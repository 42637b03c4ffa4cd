"""What a step asks of one rank, and what the rank gets.

Legend of the suffixes: b batch, t frame, h row, w column, c channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A rank's share of every step: positions [t*G + r*G//W, t*G + (r+1)*G//W).

    Shares differ by at most one where world_size does not divide global_batch. Raises ValueError
    when a rank would get nothing, or does not exist.
    """

    rank: int
    world_size: int
    global_batch: int

    def __post_init__(self) -> None:
        if self.world_size > self.global_batch:
            raise ValueError(
                f"world_size: {self.world_size} ranks cannot share a global batch of "
                f"{self.global_batch}; use at most as many ranks as samples in a batch"
            )
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: {self.rank} must be in [0, {self.world_size})")

    def positions(self, step: int) -> NDArray[np.int64]:
        """The run positions this rank reads at `step`, int64 (B,)."""
        first, last = (
            step * self.global_batch + rank * self.global_batch // self.world_size
            for rank in (self.rank, self.rank + 1)
        )
        return np.arange(first, last, dtype=np.int64)


@dataclass(kw_only=True)
class Batch:
    """What one rank gets at one step.

    video_bthwc: uint8 (B, T, H, W, C), C-contiguous, 0..255. keys: the samples' names.
    positions: int64 (B,), run positions. valid_b: bool (B,), False where the sample could not be
    read: its frames are zeros and it must not count. json: the provenance members, when asked for.
    """

    step: int
    video_bthwc: NDArray[np.uint8]
    keys: list[str]
    positions: NDArray[np.int64]
    valid_b: NDArray[np.bool_]
    json: list[dict[str, Any]] | None


class Place(NamedTuple):
    """Slot of a batch, and the sample that belongs there: its shard, and its place in the shard."""

    slot: int
    shard: int
    sample: int
