"""How far an ingest is: a bar on a terminal, a line every few seconds in a job's log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Any

from tqdm import tqdm

from shards.manifest import Shard

LINE_EVERY_S = 5.0


class Progress:
    """One phase, `cut` or `pack`. A context manager; `moved` is there to send the numbers on."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.done = 0
        self.total = 0
        self.repeated = 0
        self.over = False
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self.cpu_s = 0.0
        self._before = 0
        self._bar: tqdm[Any] | None = None
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.total and kind is None:
            self.show()
        self.over = kind is None
        self.moved()

    def start(self, total: int) -> None:
        """`total` units of work are known."""
        self.total = total
        if sys.stderr.isatty():
            unit = {"cut": "video", "pack": "shard"}[self.phase]
            self._bar = tqdm(total=total, desc=self.phase, unit=unit)

    def more(self, total: int, done: int) -> None:
        """There are `total` more units than was known, and `done` of them are finished."""
        self.total += total
        self.done += done
        self._before += done
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(done)

    def found(self, videos: list[dict[str, Any]], attempt: int) -> None:
        """A batch of sources was cut by an earlier run, in its so-many-th attempt."""
        self._before += len(videos)
        self.repeated += (attempt - 1) * len(videos)
        self.cut(videos)

    def cut(self, videos: list[dict[str, Any]]) -> None:
        """A batch of sources is cut."""
        self._count(videos, 1)
        self._advance(len(videos))

    def again(self, videos: list[dict[str, Any]]) -> None:
        """A batch that was counted is cut once more."""
        self._count(videos, -1)
        self.done -= len(videos)
        self.repeated += len(videos)

    def packed(self, shard: Shard) -> None:
        """A shard is written."""
        self.counts["clips"] += shard.samples
        self._advance(1)

    @property
    def hours(self) -> float:
        """Of video, looked at so far."""
        return self.seconds / 3600

    @property
    def hours_per_core_hour(self) -> float:
        """Hours of video per hour of one processor; 0 before there is any."""
        return self.seconds / self.cpu_s if self.cpu_s else 0.0

    @property
    def left_s(self) -> float:
        """Seconds to the end of the phase, at the pace of this run; 0 before there is one."""
        paced = self.done - self._before
        elapsed = time.monotonic() - self._began
        return elapsed / paced * (self.total - self.done) if paced > 0 else 0.0

    def line(self) -> str:
        """All numbers of the phase, in one line."""
        counts = ", ".join(f"{n} {name}" for name, n in self.counts.most_common())
        pace = f", {self.hours_per_core_hour:.1f} per core-hour" if self.cpu_s else ""
        hours = f", {self.hours:.2f} h of video{pace}" if self.seconds else ""
        elapsed = time.monotonic() - self._began
        return (
            f"{self.phase} {self.done}/{self.total}{hours}: {counts or 'nothing yet'}"
            f" ({elapsed:.0f} s, about {self.left_s:.0f} s left)"
        )

    def moved(self) -> None:
        """Called after every step and once more when the phase is over; nothing by itself."""

    def show(self) -> None:
        """Says where the phase stands."""
        print(self.line(), flush=True)

    def _count(self, videos: list[dict[str, Any]], sign: int) -> None:
        for video in videos:
            self.seconds += sign * video["seconds"]
            self.cpu_s += sign * sum(video["cpu_s"].values())
            self.counts["kept"] += sign * video["clips"]
            for _, reason, _ in video["rejected"]:
                self.counts[reason] += sign
            if video["reason"]:
                self.counts[f"video {video['reason']}"] += sign
        self.counts = +self.counts

    def _advance(self, units: int) -> None:
        self.done += units
        self.moved()
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(f"{n} {k}" for k, n in self.counts.most_common(4)))
            self._bar.update(units)
        elif time.monotonic() - self._said > LINE_EVERY_S:
            self._said = time.monotonic()
            self.show()
