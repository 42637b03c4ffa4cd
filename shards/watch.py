"""Keeps one bad source from stopping its batch: whatever hangs, crawls or crashes is left out.

A decoder that hangs, or crashes, takes its process along. So before each source a *note* in the
dataset's store says which one is next. When the batch is started again (Ray does that, or the next
run of the same command), the note tells what the last process died on: a source that did not move
for `stall_s` is left out at once, and one that a process died on twice is, too.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from shards.storage import Store

DEATHS = 2
"""A process may die of something else once: with its node, or for want of memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one source may take. They change no byte of what is kept.

    stall_s: seconds without a frame or a part of a download. total_s: seconds in all.
    """

    stall_s: float = 120.0
    total_s: float = 6 * 3600.0

    def __post_init__(self) -> None:
        for field in ("stall_s", "total_s"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field}={getattr(self, field)}: must be above 0 seconds")


class SourceTimedOutError(Exception):
    """A source took more than `total_s`, or stood still for `stall_s`."""


class Watch:
    """The work on the sources of one batch. `given_up` has those to leave out: {id: (reason, why)}.

    Use it as a context manager per source: `with watch.on(id): ... watch.alive()`. A process that
    stands still inside of one call cannot be interrupted, only ended: then this one is.
    """

    def __init__(self, limits: Limits, store: Store, note: str) -> None:
        self.limits = limits
        self.given_up: dict[str, tuple[str, str]] = {}
        self._store = store
        self._note = note
        self._deaths: Counter[str] = Counter()
        self._source: str | None = None
        self._began = self._moved = 0.0
        self._done = threading.Event()
        self._read()

    def on(self, source: str) -> Watch:
        """Notes that `source` (its id) is next."""
        self._source = source
        self._write()
        return self

    def __enter__(self) -> Watch:
        self._began = self._moved = time.monotonic()
        self._done = threading.Event()
        threading.Thread(target=self._look, args=(self._done,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._done.set()

    def alive(self) -> None:
        """The source has moved on. Raises SourceTimedOutError when it has had all of its time."""
        self._moved = time.monotonic()
        if self._moved - self._began > self.limits.total_s:
            raise SourceTimedOutError(f"took more than {self.limits.total_s:g} s")

    def passed(self) -> None:
        """The present source has come to a place that a restart goes on from: its times begin anew,
        and what it died of before does not count."""
        assert self._source is not None
        self._began = self._moved = time.monotonic()
        self._deaths.pop(self._source, None)
        self._write()

    def give_up(self, reason: str, why: str) -> None:
        """Leaves the present source out from now on."""
        assert self._source is not None
        self.given_up[self._source] = (reason, why)
        self._source = None
        self._write()

    def over(self) -> None:
        """Notes that no source is being worked on any more."""
        self._source = None
        self._write()

    def _look(self, done: threading.Event) -> None:
        while not done.wait(min(1.0, self.limits.stall_s / 4)):
            if time.monotonic() - self._moved > self.limits.stall_s:
                self.give_up("timed_out", f"did not move for {self.limits.stall_s:g} s")
                said = "a video hangs its decoder: this process ends, the next leaves it out\n"
                os.write(2, said.encode())
                os.kill(os.getpid(), signal.SIGKILL)

    def _read(self) -> None:
        try:
            note = json.loads(self._store.read(self._note))
        except FileNotFoundError:
            return
        self.given_up = {key: (reason, why) for key, (reason, why) in note["given_up"].items()}
        self._deaths = Counter(note["deaths"])
        if (last := note["source"]) is not None:
            self._deaths[last] += 1
            if self._deaths[last] >= DEATHS:
                self.given_up[last] = ("crashed", f"its process died {DEATHS} times")

    def _write(self) -> None:
        note = {"source": self._source, "deaths": self._deaths, "given_up": self.given_up}
        self._store.write(self._note, json.dumps(note).encode())
