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
    """One phase. A context manager; subclass `show` to send the numbers elsewhere."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.done = 0
        self.total = 0
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
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

    def start(self, total: int, done: int = 0) -> None:
        """`total` units of work, of which an earlier run has finished `done`."""
        self.total, self.done = total, done
        if sys.stderr.isatty():
            unit = {"cut": "video", "pack": "shard"}[self.phase]
            self._bar = tqdm(total=total, initial=done, desc=self.phase, unit=unit)

    def cut(self, videos: list[dict[str, Any]]) -> None:
        """A batch of sources is cut."""
        for video in videos:
            self.seconds += video["seconds"]
            self.counts["kept"] += video["clips"]
            self.counts.update(reason for _, reason, _ in video["rejected"])
            if video["reason"]:
                self.counts[f"video {video['reason']}"] += 1
        self._advance(len(videos))

    def again(self, videos: list[dict[str, Any]]) -> None:
        """A batch that was counted is cut once more."""
        for video in videos:
            self.seconds -= video["seconds"]
            self.counts["kept"] -= video["clips"]
            self.counts.subtract(reason for _, reason, _ in video["rejected"])
            if video["reason"]:
                self.counts[f"video {video['reason']}"] -= 1
        self.counts = +self.counts
        self.done -= len(videos)

    def packed(self, shard: Shard) -> None:
        """A shard is written."""
        self.counts["clips"] += shard.samples
        self._advance(1)

    def line(self) -> str:
        """All numbers of the phase, in one line."""
        elapsed = time.monotonic() - self._began
        counts = ", ".join(f"{n} {name}" for name, n in self.counts.most_common())
        hours = f", {self.seconds / 3600:.2f} h of video" if self.seconds else ""
        left = elapsed / self.done * (self.total - self.done) if self.done else 0
        return (
            f"{self.phase} {self.done}/{self.total}{hours}: {counts or 'nothing yet'}"
            f" ({elapsed:.0f} s, about {left:.0f} s left)"
        )

    def show(self) -> None:
        """Says where the phase stands."""
        print(self.line(), flush=True)

    def _advance(self, units: int) -> None:
        self.done += units
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(f"{n} {k}" for k, n in self.counts.most_common(4)))
            self._bar.update(units)
        elif time.monotonic() - self._said > LINE_EVERY_S:
            self._said = time.monotonic()
            self.show()
