"""Samples that cannot be read: listed, counted, and fatal when they are too many."""

from __future__ import annotations

import logging
import math
import threading

_log = logging.getLogger(__name__)
_NAMED = 20


class BadSampleError(Exception):
    """One sample cannot be read; the text says why. Caught by the reader, never by its user."""


class DataFault(Exception):  # noqa: N818 - the name says what happened, to the data
    """More samples cannot be read than `tolerance` allows; the text lists them by reason."""


class Quarantine:
    """The samples a reader could not read, as {key: reason}.

    tolerance: the share of the dataset's samples that may be listed, in [0, 1]; 0 allows none,
    anything above allows at least one.
    """

    def __init__(self, *, samples: int, tolerance: float) -> None:
        if not 0 <= tolerance <= 1:
            raise ValueError(f"tolerance: {tolerance} must be a share of the samples, in [0, 1]")
        self._allowed = math.ceil(samples * tolerance)
        self._samples = samples
        self._lock = threading.Lock()
        self.listed: dict[str, str] = {}

    def add(self, key: str, reason: str) -> None:
        """Lists `key`. Raises DataFault when it is one too many."""
        with self._lock:
            if key not in self.listed:
                _log.warning("sample %s is masked: %s", key, reason)
            self.listed[key] = reason
            if len(self.listed) > self._allowed:
                raise DataFault(self._report())

    def _report(self) -> str:
        lines = [f"  {key}: {reason}" for key, reason in sorted(self.listed.items())[:_NAMED]]
        if len(self.listed) > _NAMED:
            lines.append(f"  and {len(self.listed) - _NAMED} more")
        return "\n".join(
            [
                f"{len(self.listed)} of {self._samples} samples cannot be read, "
                f"tolerated are {self._allowed}:",
                *lines,
                "run `python -m shards.verify` on the dataset to find and repair what is broken",
            ]
        )
