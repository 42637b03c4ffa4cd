"""Clips that are in the raw data twice: found by a perceptual hash, whatever the workers.

The hash has 128 bits: for the first and the last frame of a clip, whether each of 8x8 cells of its
grey image is brighter than the one to its right. Scaling, another encoder and a little noise leave
nearly all bits as they are. A clip is a duplicate when one of another source, earlier in the order
of the keys, differs in at most a few bits. Clips of the same source never are: a camera on a stand
is not a copy. A copy that was cut to begin elsewhere is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from shards.clip import grey
from shards.video import Image

Hashes = npt.NDArray[np.uint64]
_WINDOW = 32
"""Each clip is compared with so many neighbours in each of eight sorted orders."""


def perceptual_hash(clip: Image) -> str:
    """32 hex digits of a clip (T, S, S, C)."""
    bits = []
    for gray in grey(clip[[0, -1]])[..., 0]:
        cells = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
        bits.append(cells[:, :-1] > cells[:, 1:])
    return np.packbits(np.array(bits)).tobytes().hex()


def find_duplicates(hashes: Mapping[str, str], most_bits: int) -> dict[str, str]:
    """{key of a duplicate: key of an earlier clip that it repeats}, from {key: hash}.

    Every pair that agrees in a sixteenth of its bits in one piece is looked at, but for hashes that
    more than _WINDOW clips nearly share; so with `most_bits` up to 7 none is overlooked otherwise.
    """
    keys = sorted(hashes)
    words = np.array([np.frombuffer(bytes.fromhex(hashes[key]), np.uint16) for key in keys])
    sources = np.unique([key.partition("_")[0] for key in keys], return_inverse=True)[1]
    found: dict[int, int] = {}
    for turn in range(8 if keys else 0):
        turned = np.roll(words, turn, axis=1)
        order = np.lexsort([np.arange(len(keys)), *turned.T[::-1]])
        for step in range(1, min(_WINDOW, len(keys) - 1) + 1):
            a, b = order[:-step], order[step:]
            differ = np.bitwise_count(words[a] ^ words[b]).sum(1)
            for i in np.flatnonzero((differ <= most_bits) & (sources[a] != sources[b])):
                first, second = sorted((int(a[i]), int(b[i])))
                found[second] = min(first, found.get(second, first))
    return {keys[second]: keys[first] for second, first in found.items()}


def rejecting(
    videos: Iterable[dict[str, Any]], duplicates: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Reports of videos in which each of `duplicates` is a rejected clip."""
    by_source: dict[str, list[tuple[int, str, str]]] = {}
    for key, original in sorted(duplicates.items()):
        source, _, start = key.partition("_")
        by_source.setdefault(source, []).append((int(start), "duplicate", f"of {original}"))
    return [_rejecting(video, by_source.get(video["id"], [])) for video in videos]


def _rejecting(video: dict[str, Any], gone: list[tuple[int, str, str]]) -> dict[str, Any]:
    left = video["clips"] - len(gone)
    copies = {start for start, _, _ in gone}
    return {
        **video,
        "clips": left,
        "rejected": [*video["rejected"], *gone],
        "described": [each for each in video.get("described", ()) if each[0] not in copies],
        "reason": video["reason"] if left or not gone else "no_clip_kept",
    }
