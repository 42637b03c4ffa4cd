"""Checkpoints that are whole or not there: verified at load, the newest good one wins.

`checkpoints/<step>/state.pt` is written first, `manifest.json` (format version, facts, and the
state's sha256) last, so that a checkpoint without a manifest is no checkpoint. A damaged one is
named and passed over for the one before it. The store may be a folder or `s3://`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from typing import Any

import torch

from shards.storage import Store

FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint: the step after which it was taken, the state, and the facts."""

    step: int
    state: dict[str, Any]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, below `checkpoints/` of its store. Keeps the newest `keep`."""

    def __init__(self, store: Store, *, keep: int) -> None:
        self._store = store
        self._keep = keep

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
        self._store.write(_name(step, "state.pt"), data)
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        self._store.write(_name(step, "manifest.json"), text)
        for old in self.steps()[: -self._keep]:
            self._store.delete(_name(old, "manifest.json"))
            self._store.delete(_name(old, "state.pt"))
        return len(data)

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
        manifest = json.loads(self._store.read(_name(step, "manifest.json")))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        data = self._store.read(_name(step, "state.pt"))
        if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
            raise ValueError(f"state.pt ({len(data)} bytes) does not match its sha256")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return Checkpoint(step=step, state=state, facts=manifest["facts"])


def _name(step: int, file: str) -> str:
    return f"checkpoints/{step:08d}/{file}"
