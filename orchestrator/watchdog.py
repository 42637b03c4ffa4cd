"""Ends a worker in which no step ends any more, after writing down where it stands.

A collective that one worker never joins waits without end on the others. Each worker's watchdog
notices by itself, so the stacks of all of them are in the store when the group is started again.
"""

from __future__ import annotations

import faulthandler
import os
import tempfile
import threading
import time

from shards.storage import Store

EXIT_STATUS = 77


class Watchdog:
    """Writes all threads' stacks to `name` in `store` and exits with status 77, unless `alive` is
    called at least every `timeout_s` seconds. None for the timeout watches nothing."""

    def __init__(self, store: Store, name: str, *, timeout_s: float | None) -> None:
        self._store = store
        self._name = name
        self._timeout_s = timeout_s
        self._alive = time.monotonic()
        self._closing = threading.Event()
        if timeout_s is not None:
            self._thread = threading.Thread(target=self._work, name="watchdog", daemon=True)
            self._thread.start()

    def alive(self) -> None:
        """A step is about to begin."""
        self._alive = time.monotonic()

    def close(self) -> None:
        """Stops watching."""
        self._closing.set()

    def _work(self) -> None:
        assert self._timeout_s is not None
        while not self._closing.wait(min(1.0, self._timeout_s / 4)):
            silent_s = time.monotonic() - self._alive
            if silent_s > self._timeout_s:
                self._end(silent_s)

    def _end(self, silent_s: float) -> None:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            stacks = file.read()
        print(
            f"HANG: no step ended for {silent_s:.0f} s; stacks are in {self._store.location}/"
            f"{self._name}; this worker exits to be started again",
            flush=True,
        )
        try:
            self._store.write(self._name, stacks)
        finally:
            os._exit(EXIT_STATUS)
