"""Which samples a run consumed, step by step: the proof that none was lost or repeated.

Every worker buffers its lines and writes them just before a checkpoint is taken, so the ledger
holds exactly the steps that a checkpoint covers. A step that was done again after a restart counts
once: the last attempt's lines stand.
"""

from __future__ import annotations

import json
from collections import defaultdict

from shards.storage import Store


class Ledger:
    """One worker's lines of one attempt."""

    def __init__(self, store: Store, *, attempt: int, rank: int) -> None:
        self._store = store
        self._attempt = attempt
        self._rank = rank
        self._lines: list[tuple[int, list[str]]] = []

    def add(self, step: int, keys: list[str]) -> None:
        """Notes the keys that this worker consumed in `step`, in order."""
        self._lines.append((step, keys))

    def flush(self) -> None:
        """Writes what was noted since the last flush, as one object."""
        if not self._lines:
            return
        first = self._lines[0][0]
        name = f"ledger/{self._attempt:04d}/{first:08d}-{self._rank:05d}.jsonl"
        text = "".join(json.dumps([step, keys]) + "\n" for step, keys in self._lines)
        self._store.write(name, text.encode())
        self._lines.clear()


def read_ledger(store: Store) -> list[tuple[int, list[str]]]:
    """[(step, the global batch's keys in order)], ascending, from a finished or running run."""
    steps: dict[int, dict[int, dict[int, list[str]]]] = defaultdict(lambda: defaultdict(dict))
    for name, _ in store.list("ledger/"):
        _, attempt, chunk = name.split("/")
        rank = int(chunk.removesuffix(".jsonl").split("-")[1])
        for line in store.read(name).decode().splitlines():
            step, keys = json.loads(line)
            steps[step][int(attempt)][rank] = keys
    return [
        (step, [key for _, keys in sorted(attempts[max(attempts)].items()) for key in keys])
        for step, attempts in sorted(steps.items())
    ]
