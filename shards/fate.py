"""What became of one source of an ingest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class VideoReport:
    """What became of one source. All of it is a function of the content but `cpu_s`.

    reason: why nothing of it was kept, or None. note: why only a part was looked at, or None.
    frames: slots of the grid. rejected: (start frame, reason, detail) per clip. described: (number
    in its key, {"caption", "attributes"}) per kept clip that has one of them.
    cpu_s: seconds of processor time by stage.
    """

    source: str
    id: str
    etag: str | None = None
    codec: str | None = None
    width: int | None = None
    height: int | None = None
    source_fps: float | None = None
    frames: int = 0
    seconds: float = 0.0
    clips: int = 0
    rejected: list[tuple[int, str, str]] = field(default_factory=list)
    described: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    reason: str | None = None
    detail: str | None = None
    note: str | None = None
    cpu_s: dict[str, float] = field(
        default_factory=lambda: {"decode": 0.0, "stabilize": 0.0, "encode": 0.0}
    )
