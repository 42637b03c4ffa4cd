"""What an evaluation is of, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shards.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Source:
    """The clips that a model is measured with. trained_on: whether it has learned from them."""

    name: str
    dataset: Dataset
    trained_on: bool


@dataclass(kw_only=True)
class Evaluation:
    """What came out: metrics by name (in MLflow `val/<name>`), what each means, and pictures."""

    run: str
    step: int
    kind: str
    data: dict[str, Any] | None
    clips: int
    metrics: dict[str, float] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Everything but the pictures, JSON-able."""
        return {name: value for name, value in vars(self).items() if name != "files"}
