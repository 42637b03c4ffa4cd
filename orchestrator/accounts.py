"""Where a run's seconds go: every one in exactly one account, over all of its attempts.

The clock runs from the run's first command and never stops. What rank 0 does is counted as it is
done; the rest is told apart when the next attempt begins, from the checkpoint that it goes on from,
the last note that the attempt before left in the store, and the moment of its command:

    checkpoint .. last note             lost: steps done, and to be done again
    last note .. the command            idle: nobody was running
    the command .. the first step       restart, the first start included

Where Ray started the workers again there was no new command, and all after the note is restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# What becomes `lost` when it is undone, and what stays spent. A step is compute, collective
# (waiting for other workers or the network) and data_wait.
WORK = ("compute", "collective", "data_wait", "checkpoint", "samples", "logging", "other")
AWAY = ("restart", "lost", "idle")


@dataclass(frozen=True, kw_only=True)
class Note:
    """The accounts at a moment. at: seconds since 1970; spent: seconds by account, none missing."""

    at: float
    spent: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(WORK + AWAY, 0.0))


class Accounts:
    """A run's accounts, going on from `note`. started: its first command, seconds since 1970."""

    def __init__(self, *, started: float, note: Note) -> None:
        self._started = started
        self._spent = dict(note.spent)

    @classmethod
    def resumed(
        cls, *, started: float, saved: Note | None, last: Note | None, command: float, now: float
    ) -> Accounts:
        """The accounts of an attempt that is ready for its first step at `now`.

        saved: of the checkpoint that it goes on from, None at step 0. last: what the attempt before
        noted last, None where there is nothing. command: when this attempt's command was given.
        """
        saved = saved or Note(at=started)
        if last is None or last.at < saved.at:
            last = saved
        accounts = cls(started=started, note=last)
        accounts.undo(saved)
        back = min(max(last.at, command), now)
        accounts.add("idle", back - last.at)
        accounts.add("restart", now - back)
        return accounts

    def add(self, account: str, seconds: float) -> None:
        """Counts seconds on an account."""
        self._spent[account] += seconds

    def undo(self, saved: Note) -> None:
        """What was worked since `saved` is lost."""
        for name in WORK:
            self._spent["lost"] += self._spent[name] - saved.spent[name]
            self._spent[name] = saved.spent[name]

    def note(self, at: float) -> Note:
        """The accounts at a moment; what nobody counted is `other`."""
        spent = dict(self._spent)
        spent["other"] += at - self._started - sum(spent.values())
        return Note(at=at, spent=spent)

    def shares(self, at: float) -> dict[str, float]:
        """Every account's share of the run's time so far; they sum to 1."""
        spent = self.note(at).spent
        return {name: seconds / (at - self._started) for name, seconds in spent.items()}
