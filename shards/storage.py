"""Files and objects under one small face, so that `s3://` works wherever a folder does.

A *location* is a string: a local path or an `s3://bucket/prefix` URL. `open_store(location)` gives
a `Store` rooted there; the names below it are relative, with forward slashes. Two promises hold on
every backend: a name appears only with its whole content (`write` is atomic), and `write_new`
succeeds for exactly one of many concurrent writers.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol


class UnreachableError(OSError):
    """A store's server does not answer, however often it is asked: no fault of what it stores."""


class Store(Protocol):
    """A flat space of named byte strings below one location."""

    location: str

    def read(self, name: str) -> bytes:
        """The whole content. Raises FileNotFoundError when there is no such name."""
        ...

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer only when the content ends there."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Puts or replaces; readers see the old content or the new, never a part."""
        ...

    def write_new(self, name: str, data: bytes) -> bool:
        """Puts only where the name is free; False, and no change, where it is taken."""
        ...

    def upload(self, name: str, path: Path) -> None:
        """Like `write`, from a local file that may be larger than memory; the file may be moved."""
        ...

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(name, bytes) of every name that starts with `prefix`, sorted by name."""
        ...

    def delete(self, name: str) -> None:
        """Removes the name; a name that is not there is no error."""
        ...


def is_remote(location: str) -> bool:
    """Whether `location` is an object store's URL and not a folder."""
    return location.startswith("s3://")


def join(location: str, *names: str) -> str:
    """`location` with `names` below it, for folders and URLs alike."""
    return "/".join([location.rstrip("/"), *(name.strip("/") for name in names)])


def open_store(location: str) -> Store:
    """The store at `location`. Nothing is created or contacted until it is used.

    Raises ValueError for a URL scheme that is not known.
    """
    if is_remote(location):
        from shards.s3 import S3Store

        return S3Store(location)
    if "://" in location:
        raise ValueError(f"{location!r}: only local paths and s3:// URLs are known")
    return LocalStore(location)


class LocalStore:
    """A folder. Writes go to a temporary file in the target's folder, then are renamed."""

    def __init__(self, location: str) -> None:
        self.location = str(Path(location).absolute())
        self.root = Path(self.location)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with (self.root / name).open("rb") as file:
            return os.pread(file.fileno(), size, offset)

    def write(self, name: str, data: bytes) -> None:
        self._temporary(name, io.BytesIO(data)).replace(self.root / name)

    def write_new(self, name: str, data: bytes) -> bool:
        temporary = self._temporary(name, io.BytesIO(data))
        try:
            os.link(temporary, self.root / name)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def upload(self, name: str, path: Path) -> None:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.stat().st_dev == target.parent.stat().st_dev:
            path.chmod(0o644)
            path.replace(target)
        else:
            with path.open("rb") as file:
                self._temporary(name, file).replace(target)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        base = self.root / prefix.rpartition("/")[0]
        found = (
            (path.relative_to(self.root).as_posix(), path)
            for path in base.rglob("*")
            if path.is_file() and not path.name.startswith(".tmp-")
        )
        for name, path in sorted(found):
            if name.startswith(prefix):
                yield name, path.stat().st_size

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def _temporary(self, name: str, data: BinaryIO) -> Path:
        folder = (self.root / name).parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(prefix=".tmp-", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                shutil.copyfileobj(data, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        return Path(path)
