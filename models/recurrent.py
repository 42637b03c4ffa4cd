"""An LSTM cell as the papers count it: one bias, and a forget gate that begins open."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class Lstm(nn.Module):
    """(input_bx (B, X), (hidden, cell)) -> (hidden, cell), each (B, H).

    One bias vector, as in TensorFlow and in the papers' parameter counts (torch's cell has two),
    and 1 added to the forget gate.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def start(self, like: Tensor) -> State:
        """The state before the first step, zeros, for as many rows as `like` has."""
        zero_bh = torch.zeros(len(like), self.hidden, device=like.device)
        return zero_bh, zero_bh

    def forward(self, input_bx: Tensor, state: State) -> State:
        hidden_bh, cell_bh = state
        gates = self.gates(torch.cat([input_bx, hidden_bh], 1)).float()
        into, new, forget, out = gates.chunk(4, 1)
        cell_bh = (forget + 1).sigmoid() * cell_bh + into.sigmoid() * new.tanh()
        return out.sigmoid() * cell_bh.tanh(), cell_bh
