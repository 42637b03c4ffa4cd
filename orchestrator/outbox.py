"""What waits to be told to MLflow: an append-only file, and how far it has been sent.

A record is on disk before anyone tries to send it, so nothing is lost when the server is away or
the process is killed. `<writer>.jsonl` holds the records, `<writer>.sent` the bytes already sent.
Sending a record twice must do no harm: a kill between sending and marking repeats it.

Where the run's store is not on this disk, `keep` puts what is unsent there as well, in
`outbox/<writer>.json` and `outbox/artifacts/`, so that it outlives the disk.
"""

from __future__ import annotations

import errno
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from shards.storage import Store, is_remote

Record = dict[str, Any]
_log = logging.getLogger(__name__)


def is_full(error: BaseException) -> bool:
    """Whether there was no room on a disk."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class Outbox:
    """One writer's records in `folder`. `append` and `pending` may be called from two threads.

    store: the run's. What an outbox on another disk kept in it and this one lacks is taken over.
    """

    def __init__(self, folder: Path, writer: str, store: Store | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.writer = writer
        self._records = folder / f"{writer}.jsonl"
        self._sent = folder / f"{writer}.sent"
        self._lock = threading.Lock()
        self._store = store if store is not None and is_remote(store.location) else None
        self._kept: list[Record] = []
        self._heal()
        if self._store is not None:
            self._take(self._store)

    def append(self, record: Record) -> None:
        """Keeps `record` (JSON-able). Raises OSError, and keeps no part of it, on a full disk."""
        line = (json.dumps(record) + "\n").encode()
        with self._lock, self._records.open("ab", buffering=0) as file:
            begin, written = file.tell(), 0
            try:
                while written < len(line):
                    written += file.write(line[written:])
            except OSError as error:
                file.truncate(begin)
                raise OSError(error.errno, error.strerror, str(self._records)) from None

    def pending(self, limit: int) -> tuple[list[Record], int]:
        """(up to `limit` unsent records, the mark to pass to `sent` once they are sent)."""
        mark = self._mark()
        if not self._records.exists():
            return [], mark
        records: list[Record] = []
        # Without the lock: what is long to read must not hold up `append`.
        with self._records.open("rb") as file:
            file.seek(mark)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written
                records.append(json.loads(line))
                mark += len(line)
                if len(records) == limit:
                    break
        return records, mark

    def keep(self) -> None:
        """Puts what is unsent into the store. One that does not answer is said, and no error."""
        if self._store is None:
            return
        records, _ = self.pending(sys.maxsize)
        try:
            for name in _artifacts(records) - _artifacts(self._kept):
                with suppress(FileNotFoundError):  # sent in the meantime
                    data = (self.folder / "artifacts" / name).read_bytes()
                    self._store.write(f"outbox/artifacts/{name}", data)
            if records:
                self._store.write(f"outbox/{self.writer}.json", json.dumps(records).encode())
            elif self._kept:
                self._store.delete(f"outbox/{self.writer}.json")
            for name in _artifacts(self._kept) - _artifacts(records):
                self._store.delete(f"outbox/artifacts/{name}")
        except OSError as error:
            _log.warning("what MLflow has not taken is on this machine alone: %s", error)
        else:
            self._kept = records

    @property
    def is_empty(self) -> bool:
        """Whether everything has arrived."""
        return not self.pending(1)[0]

    def sent(self, mark: int) -> None:
        """Notes that everything before `mark` has arrived."""
        temporary = self._sent.with_suffix(".new")
        temporary.write_text(str(mark))
        temporary.replace(self._sent)

    def last_step(self) -> int:
        """The highest step of any metric ever kept, or -1."""
        return max((record.get("step", -1) for record in self._all()), default=-1)

    def last(self, kind: str) -> Record | None:
        """The newest record of this kind ever kept, sent or not."""
        found = None
        for record in self._all():
            found = record if record["kind"] == kind else found
        return found

    def _all(self) -> Iterator[Record]:
        if self._records.exists():
            with self._records.open() as file:
                yield from map(json.loads, file)

    def _take(self, store: Store) -> None:
        try:
            self._kept = json.loads(store.read(f"outbox/{self.writer}.json"))
        except FileNotFoundError:
            return
        newest = max((record.get("step", -1) for record in self._kept), default=-1)
        if self._records.exists() and newest <= self.last_step():
            return  # this disk was written since
        for name in _artifacts(self._kept):
            path = self.folder / "artifacts" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # sent while it was kept
                path.write_bytes(store.read(f"outbox/artifacts/{name}"))
        for record in self._kept:
            self.append(record)

    def _mark(self) -> int:
        return int(self._sent.read_text()) if self._sent.exists() else 0

    def _heal(self) -> None:
        """Cuts off a last line that a kill left half-written."""
        if not self._records.exists():
            return
        data = self._records.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self._records.open("r+b") as file:
                file.truncate(whole)


def _artifacts(records: list[Record]) -> set[str]:
    return {record["name"] for record in records if record["kind"] == "artifact"}
