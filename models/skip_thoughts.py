"""Sentences as skip-thought vectors (Kiros et al. 2015), from the published weights.

Sync-DRAW 2017 (Eq. 11) gives them to its generator. The folder holds what the authors publish:
`uni_skip.npz` and `bi_skip.npz` (the two encoders' weights), `dictionary.txt` (a word a line),
`utable.npy` and `btable.npy` (the words' vectors in the dictionary's order). A sentence is 4,800
numbers: 2,400 of the one-way encoder, 1,200 of either way of the other, each half of unit length.
An encoder is a gated recurrent unit:

    r, u = sigmoid(x W + b + h U);  h' = tanh((h Ux) r + x Wx + bx);  h = u h + (1 - u) h'

Legend: n sentences, l words, d of a word, h hidden.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_WEIGHTS = ("W", "b", "U", "Wx", "bx", "Ux")
_WORDS = re.compile(r"\w+|[^\w\s]")
UNKNOWN = "UNK"


class SkipThoughts:
    """The two published encoders. size: of a sentence's vector. Each sentence is encoded once.

    Raises ValueError where the folder is none, or its files do not fit together.
    """

    def __init__(self, folder: str) -> None:
        place = Path(folder).expanduser()
        self._one = _weights(place / "uni_skip.npz", "encoder")
        self._ahead = _weights(place / "bi_skip.npz", "encoder")
        self._back = _weights(place / "bi_skip.npz", "encoder_r")
        words = _dictionary(place / "dictionary.txt")
        self._one_words = _table(place / "utable.npy", words, self._one)
        self._two_words = _table(place / "btable.npy", words, self._ahead)
        self._known: dict[str, Tensor] = {}
        self.size = sum(len(each["Ux"]) for each in (self._one, self._ahead, self._back))

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> Tensor:
        """(N, size) float32. A word that is not known counts as the published unknown one.

        Raises ValueError for a sentence without words.
        """
        for sentence in sentences:
            if sentence not in self._known:
                self._known[sentence] = self._vector(_WORDS.findall(sentence), sentence)
        return torch.stack([self._known[sentence] for sentence in sentences])

    def _vector(self, words: list[str], sentence: str) -> Tensor:
        if not words:
            raise ValueError(f"caption {sentence!r}: has no words")
        one_ld, two_ld = (
            torch.stack([table.get(word, table[UNKNOWN]) for word in words])
            for table in (self._one_words, self._two_words)
        )
        one_h = _last(self._one, one_ld)
        two_h = torch.cat([_last(self._ahead, two_ld), _last(self._back, two_ld.flip(0))])
        return torch.cat([one_h / one_h.norm(), two_h / two_h.norm()])


@lru_cache(maxsize=1)
def _of(folder: str) -> SkipThoughts:
    return SkipThoughts(folder)


def from_environment(size: int) -> SkipThoughts:
    """Those in the folder SKIP_THOUGHTS, loaded once.

    Raises ValueError where none is named, or a sentence has not so many numbers.
    """
    folder = os.environ.get("SKIP_THOUGHTS")
    if not folder:
        raise ValueError(
            "SKIP_THOUGHTS: name the folder of the published skip-thoughts in it, or take "
            "model.captions=sentence, whose encoder is trained with the model"
        )
    encoder = _of(folder)
    if encoder.size != size:
        raise ValueError(f"model.language={size}: {folder} has {encoder.size} numbers")
    return encoder


def _last(weights: dict[str, Tensor], word_ld: Tensor) -> Tensor:
    """(H,): the state behind the last word."""
    hidden = len(weights["Ux"])
    state_h = torch.zeros(hidden)
    for word_d in word_ld:
        gates = (word_d @ weights["W"] + weights["b"] + state_h @ weights["U"]).sigmoid()
        reset_h, keep_h = gates[:hidden], gates[hidden:]
        new_h = (
            (state_h @ weights["Ux"]) * reset_h + word_d @ weights["Wx"] + weights["bx"]
        ).tanh()
        state_h = keep_h * state_h + (1 - keep_h) * new_h
    return state_h


def _weights(file: Path, prefix: str) -> dict[str, Tensor]:
    found = _load(file)
    try:
        return {name: torch.from_numpy(found[f"{prefix}_{name}"]).float() for name in _WEIGHTS}
    except KeyError as error:
        raise ValueError(f"{file}: has no {error}; not skip-thoughts' published weights") from None


def _dictionary(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None


def _table(file: Path, words: list[str], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each word's vector. The published tables are arrays in the dictionary's order."""
    found = _load(file)
    size = len(weights["W"])
    if found.ndim != 2 or found.shape[1] != size or len(found) > len(words):
        raise ValueError(
            f"{file}: an array of {found.shape}, not of {size} numbers for each of the "
            f"{len(words)} words of dictionary.txt"
        )
    rows = torch.from_numpy(found).float()
    table = dict(zip(words, rows, strict=False))
    if UNKNOWN not in table:
        raise ValueError(f"{file}: has no word {UNKNOWN}")
    return table


def _load(file: Path) -> Any:
    """Never a pickle: that would run whatever it says."""
    try:
        return np.load(file, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(
            f"{file}: not plain arrays ({error}); save a pickled table again as an array in the "
            "dictionary's order"
        ) from None
