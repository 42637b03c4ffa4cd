"""Checkpoints that are whole or not there: verified at load, the newest good one wins.

`checkpoints/<step>/state.pt` is written first, `manifest.json` (format version, facts, the state's
sha256 and its own) last, so that a checkpoint without a manifest is no checkpoint. A damaged one
is named and passed over for the one before it. The store may be a folder or `s3://`.

`facts["metrics"]` are what the checkpoint's window of steps measured; by one of them the best one
may be kept besides the newest.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from shards.storage import Store

FORMAT = 2
WRITE_TRIES = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint: the step after which it was taken, the state, and the facts."""

    step: int
    state: dict[str, Any]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, below `checkpoints/` of its store.

    Keeps the newest `keep`, and with `metric` the one of its lowest (or `highest`) value.
    """

    def __init__(
        self, store: Store, *, keep: int, metric: str | None = None, highest: bool = False
    ) -> None:
        self._store = store
        self._keep = keep
        self._metric = metric
        self._sign = -1.0 if highest else 1.0

    def save(self, step: int, state: dict[str, Any], facts: dict[str, Any]) -> int:
        """Writes the checkpoint taken after `step` steps; returns its bytes.

        state: tensors and plain values, loadable with `weights_only`. facts: JSON-able.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        manifest = {
            "format": FORMAT,
            "step": step,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "facts": facts,
        }
        self._write(_name(step, "state.pt"), data)
        text = json.dumps(manifest | {"seal": _seal(manifest)}, indent=1, sort_keys=True)
        self._write(_name(step, "manifest.json"), text.encode())
        best = self.best()
        for old in self.steps()[: -self._keep]:
            if old != best:
                self._store.delete(_name(old, "manifest.json"))
                self._store.delete(_name(old, "state.pt"))
        return len(data)

    def best(self) -> int | None:
        """The step of the best checkpoint by the metric; of equals the first. None without any."""
        found = []
        for step in self.steps() if self._metric is not None else ():
            try:
                value = self._manifest(step)["facts"]["metrics"][self._metric]
            except (ValueError, OSError, KeyError):  # damaged, or of a step that did not measure it
                continue
            found.append((self._sign * value, step))
        return min(found)[1] if found else None

    def _write(self, name: str, data: bytes) -> None:
        for attempt in range(1, WRITE_TRIES):
            try:
                self._store.write(name, data)
            except OSError as error:
                _log.warning("writing %s failed (%s), again in %d s", name, error, 2**attempt)
                time.sleep(2**attempt)
            else:
                return
        self._store.write(name, data)

    def steps(self) -> list[int]:
        """The steps that have a manifest, ascending."""
        names = [name.split("/") for name, _ in self._store.list("checkpoints/")]
        return sorted(int(parts[1]) for parts in names if parts[-1] == "manifest.json")

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, or None; damaged ones are named in the log."""
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except (ValueError, OSError) as error:
                _log.warning("checkpoint %d is damaged, taking the one before: %s", step, error)
        return None

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of `step`, verified.

        Raises FileNotFoundError when there is none, ValueError when it is damaged or of another
        format.
        """
        manifest = self._manifest(step)
        data = self._store.read(_name(step, "state.pt"))
        if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
            raise ValueError(f"state.pt ({len(data)} bytes) does not match its sha256")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return Checkpoint(step=step, state=state, facts=manifest["facts"])

    def _manifest(self, step: int) -> dict[str, Any]:
        """Raises ValueError unless it is of this format and every value is as it was written."""
        manifest = dict(json.loads(self._store.read(_name(step, "manifest.json"))))
        if manifest.get("format") != FORMAT:
            raise ValueError(f"format {manifest.get('format')}, this version reads {FORMAT}")
        if manifest.pop("seal", None) != _seal(manifest):
            raise ValueError("manifest.json does not match its seal")
        return manifest


class BackgroundSaver:
    """Saves checkpoints from a consistent copy, in a thread, while training goes on.

    Training is blocked only while the state is copied into buffers that are kept for the next
    time, and, when the one before is still being written, until that one is done. A checkpoint
    that cannot be written is said loudly and training goes on: the older good one stands.

    may_write: asked in the thread, before a checkpoint is written. Once it says no, nothing is
    written any more and `is_superseded`. saved_at: when the last one was whole, in seconds since
    1970; before the first, when this was made.
    """

    def __init__(
        self, checkpoints: Checkpoints, *, may_write: Callable[[], bool] = lambda: True
    ) -> None:
        self._checkpoints = checkpoints
        self._may_write = may_write
        self.is_superseded = False
        self.saved_at = time.time()
        self._buffers: dict[str, torch.Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, step: int, state: dict[str, Any], facts: dict[str, Any]) -> float:
        """Starts saving; the seconds that the caller was blocked."""
        started = time.perf_counter()
        if self._thread is not None:
            self._thread.join()
        copy = self._copied("", state)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._error = None
        self._thread = threading.Thread(
            target=self._work, args=(step, copy, facts), name="checkpoint"
        )
        self._thread.start()
        return time.perf_counter() - started

    def wait(self) -> None:
        """Blocks until the last one is written. Raises its OSError where it could not be."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self, step: int, state: dict[str, Any], facts: dict[str, Any]) -> None:
        try:
            self.is_superseded = self.is_superseded or not self._may_write()
            if not self.is_superseded:
                self._checkpoints.save(step, state, facts)
                self.saved_at = time.time()
        except OSError as error:
            self._error = error
            _log.error("checkpoint %d could not be written, the one before stands: %s", step, error)

    def _copied(self, path: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._copied(f"{path}/{key}", item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._copied(f"{path}/{n}", item) for n, item in enumerate(value)]
        if not isinstance(value, torch.Tensor):
            return value
        buffer = self._buffers.get(path)
        if buffer is None:
            pinned = value.device.type == "cuda"
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
            self._buffers[path] = buffer
        return buffer.copy_(value, non_blocking=True)


def _seal(manifest: dict[str, Any]) -> str:
    """The sha256 of a manifest's content, whatever its layout."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _name(step: int, file: str) -> str:
    return f"checkpoints/{step:08d}/{file}"
