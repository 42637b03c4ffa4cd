"""Memory of batches that nobody holds any more, used again.

A fresh array of some megabytes costs a page fault for every 4 KiB, which is half of what reading
raw clips costs. Whether an array is still in use is what CPython's reference count says: views,
tensors made from it, and exported buffers all count.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

_UNUSED = 3  # references when only this module's list, a loop variable and the count's argument do


class Buffers:
    """Gives uint8 arrays; keeps at most `most` for another time. For one thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of that shape, C-contiguous, with any content."""
        for array in self._kept:
            if array.shape == shape and sys.getrefcount(array) == _UNUSED:
                return array
        new: NDArray[np.uint8] = np.empty(shape, dtype=np.uint8)
        self._kept.append(new)
        if len(self._kept) > self._most:
            self._kept.pop(0)
        return new
