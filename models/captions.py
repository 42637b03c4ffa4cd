"""Captions for a generator: a sentence as one vector, or its words weighed at every step.

A caption is int64 (B, L): the words' places in the vocabulary, 0 beyond the last.

Legend: b captions, l words, d features, h hidden features.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.recurrent import Lstm


def tokens(captions: Sequence[str], words: Sequence[str], length: int) -> Tensor:
    """int64 (B, length): captions as their words' places in `words`, from 1, and 0 beyond the last.

    Raises ValueError for a word that is not known, with the nearest, and for too many of them.
    """
    place = {word: n for n, word in enumerate(words, start=1)}
    out = torch.zeros(len(captions), length, dtype=torch.int64)
    for row, caption in zip(out, captions, strict=True):
        found = caption.lower().split()
        if not 0 < len(found) <= length:
            raise ValueError(f"caption {caption!r}: must have 1 to {length} words (model.words)")
        for n, word in enumerate(found):
            if word not in place:
                near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise ValueError(
                    f"caption {caption!r}: no word {word!r}{hint} Known: {', '.join(words)}"
                )
            row[n] = place[word]
    return out


class Words(nn.Module):
    """caption_bl -> (B, L, 2 D): a bidirectional LSTM's states at each word, 0 beyond the last
    (Sync-DRAW 2016, Section 3.2: LSTM_lang)."""

    def __init__(self, vocabulary: int, features: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, features)
        self.forwards = Lstm(features, features)
        self.backwards = Lstm(features, features)

    def forward(self, caption_bl: Tensor) -> Tensor:
        embedded_bld = self.embedding(caption_bl)
        there_bl = caption_bl > 0
        ahead = _run(self.forwards, embedded_bld, there_bl)
        back = _run(self.backwards, embedded_bld.flip(1), there_bl.flip(1)).flip(1)
        return torch.cat([ahead, back], 2) * there_bl[..., None]


def _run(cell: Lstm, input_bld: Tensor, there_bl: Tensor) -> Tensor:
    """The cell's hidden states (B, L, D); where there is no word the state stays."""
    state = cell.start(input_bld)
    out = []
    for input_bd, there_b in zip(input_bld.unbind(1), there_bl.unbind(1), strict=True):
        new = cell(input_bd, state)
        kept = there_b[:, None]
        state = (torch.where(kept, new[0], state[0]), torch.where(kept, new[1], state[1]))
        out.append(state[0])
    return torch.stack(out, 1)


class Sentence(nn.Module):
    """caption_bl -> (B, D): a small encoder that is trained with the model.

    It stands where Sync-DRAW 2017 (Eq. 11) has skip-thought vectors, which are a download.
    """

    def __init__(self, vocabulary: int, features: int) -> None:
        super().__init__()
        self.words = Words(vocabulary, features)
        self.vector = nn.Linear(2 * features, features)

    def forward(self, caption_bl: Tensor) -> Tensor:
        word_bld = self.words(caption_bl)
        count_b1 = (caption_bl > 0).sum(1, keepdim=True).clamp_min(1)
        vector_bd: Tensor = self.vector(word_bld.sum(1) / count_b1)
        return vector_bd.tanh()


class Alignment(nn.Module):
    """Sync-DRAW 2016, Eq. 12 and 13: (words_bld, hidden_bh) -> s_t (B, 2 D), the words' mean by
    weights softmax(v . tanh(U word + W hidden + b)), anew at every step."""

    def __init__(self, vocabulary: int, features: int, hidden: int, align: int = 512) -> None:
        super().__init__()
        self.lstm = Words(vocabulary, features)
        self.of_word = nn.Linear(2 * features, align)
        self.of_hidden = nn.Linear(hidden, align, bias=False)
        self.score = nn.Linear(align, 1, bias=False)

    def words(self, caption_bl: Tensor) -> Tensor:
        """(B, L, 2 D), once for all steps."""
        word_bld: Tensor = self.lstm(caption_bl)
        return word_bld

    def weights(self, word_bld: Tensor, hidden_bh: Tensor) -> Tensor:
        """(B, L), summing to 1 over the words that are there."""
        both_bla = self.of_word(word_bld) + self.of_hidden(hidden_bh)[:, None]
        score_bl: Tensor = self.score(both_bla.tanh())[..., 0].float()
        absent_bl = (word_bld == 0).all(2)
        return score_bl.masked_fill(absent_bl, float("-inf")).softmax(1)

    def forward(self, word_bld: Tensor, hidden_bh: Tensor) -> Tensor:
        weighed_bld: Tensor = self.weights(word_bld, hidden_bh)[..., None] * word_bld
        return weighed_bld.sum(1)
