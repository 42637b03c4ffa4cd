"""What a run's store says of its own past: attempts, rollbacks, reports, accounts, the end."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from orchestrator.accounts import Note
from shards.storage import Store

ACCOUNTS = "accounts.json"
REPORTS = "reports/"
STOP = "stop"  # an object in the run's store: the driver asks the workers to save and leave


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of the worker group.

    first_step: the step it goes on from. started: the run's first command, seconds since 1970.
    """

    number: int
    first_step: int
    started: float


class History:
    """The record of one run; every worker reads it, rank 0 writes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, *, first_step: int, world_size: int, command_at: float) -> Attempt:
        """Notes a new attempt, whose number nobody else has."""
        names = [name for name, _ in self._store.list("attempts/")]
        number = 1 + len(names)
        facts = {
            "first_step": first_step,
            "world_size": world_size,
            "time": time.time(),
            "command_at": command_at,
        }
        while not self._store.write_new(_attempt(number), json.dumps(facts).encode()):
            number += 1
        first = json.loads(self._store.read(names[0])) if names else facts
        started = float(first["command_at"])
        return Attempt(number=number, first_step=first_step, started=started)

    def is_newest(self, attempt: int) -> bool:
        """Whether no later attempt has begun: after the loss of a head a node's workers train on,
        driven by nobody, until the node notices."""
        names = [name for name, _ in self._store.list("attempts/")]
        return max(names, default="") <= _attempt(attempt)

    @property
    def rollbacks(self) -> int:
        """How often the run went back with half the learning rate."""
        return sum(1 for _ in self._store.list("rollbacks/"))

    def roll_back(self, times: int, why: str) -> None:
        """Notes the `times`-th rollback."""
        self._store.write(f"rollbacks/{times:04d}", why.encode())

    @property
    def last_note(self) -> Note | None:
        """The accounts as an attempt noted them last."""
        try:
            return Note(**json.loads(self._store.read(ACCOUNTS)))
        except FileNotFoundError:
            return None

    @property
    def asks_to_stop(self) -> bool:
        """Whether the driver asked the workers to save and leave."""
        return any(True for _ in self._store.list(STOP))

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Says what the window of steps that ends with `step` measured."""
        self._store.write(f"{REPORTS}{step:08d}.json", json.dumps(metrics, sort_keys=True).encode())

    def reported(self, after: int = 0) -> list[tuple[int, dict[str, float]]]:
        """(step, metrics) of all reports of later steps than `after`, ascending."""
        names = sorted(name for name, _ in self._store.list(REPORTS))
        steps = [(int(name.removeprefix(REPORTS).removesuffix(".json")), name) for name in names]
        return [(s, json.loads(self._store.read(name))) for s, name in steps if s > after]

    def forget_reports(self, after: int) -> None:
        """Takes back the reports of later steps than `after`."""
        for step, _ in self.reported(after):
            self._store.delete(f"{REPORTS}{step:08d}.json")

    def finish(self, result: dict[str, Any]) -> None:
        """The run is over, with this result."""
        self._store.write("result.json", json.dumps(result, indent=1, sort_keys=True).encode())


def _attempt(number: int) -> str:
    return f"attempts/{number:04d}.json"
