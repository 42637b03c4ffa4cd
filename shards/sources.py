"""Which videos an ingest reads: those below a folder, or those a list file names.

A source's identity is its path relative to the folder (or its line in the list), so a dataset does
not depend on where its videos happen to lie. Folders and lists may be local or on `s3://`; a list
may also name `http(s)://` URLs.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from shards.storage import is_remote, join, open_store

_CONTAINERS = (
    "3gp avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"  # what people film in
)
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _CONTAINERS.split())
LIST_SUFFIXES = frozenset((".txt", ".list", ".lst"))
IN_MEMORY_BYTES = 256 << 20
"""Up to here a video is read whole, in one go; a larger one is read from a local file."""
HTTP_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One video. name: its identity. location: where to read it. bytes: None when not known."""

    name: str
    location: str
    bytes: int | None = None

    @property
    def id(self) -> str:
        """16 hex digits of the name's sha256: the first part of its clips' keys."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    @property
    def labels(self) -> list[str]:
        """The folder it lies in, when that is below the ingest's: the usual layout of classes."""
        folder = "" if "://" in self.name else self.name.rpartition("/")[0]
        return [folder.rpartition("/")[2]] if folder else []


def find_sources(location: str) -> list[Source]:
    """The videos of a folder or a list file, sorted by name.

    A folder is searched to any depth for names with a video's suffix, hidden ones left out. Raises
    FileNotFoundError when nothing is there, and ValueError when there is not one video in it.
    """
    if not is_remote(location) and not Path(location).exists():
        raise FileNotFoundError(f"SRC {location}: no such folder or list file")
    suffix = Path(location).suffix.lower()
    is_file = suffix in LIST_SUFFIXES if is_remote(location) else Path(location).is_file()
    if not is_file:
        found = _in_folder(location)
        asked = f"no file below it ends in one of {' '.join(sorted(VIDEO_SUFFIXES))}"
    elif suffix in VIDEO_SUFFIXES:
        name = Path(location).name
        return [Source(name=name, location=location, bytes=Path(location).stat().st_size)]
    else:
        found = _in_list(location)
        asked = "the list has no line that names a video"
    if not found:
        raise ValueError(f"SRC {location}: no videos ({asked})")
    return sorted(found.values(), key=lambda source: source.name)


@contextmanager
def open_source(source: Source) -> Iterator[tuple[BinaryIO | str, str]]:
    """(what to decode, sha256 of the content in hex). Raises OSError when it cannot be read."""
    with tempfile.TemporaryFile() as spool:
        if source.location.startswith(("http://", "https://")):
            with urllib.request.urlopen(source.location, timeout=HTTP_TIMEOUT_S) as response:
                shutil.copyfileobj(response, spool)
        elif (source.bytes or 0) <= IN_MEMORY_BYTES:
            data = open_store(_folder(source.location)).read(_base(source.location))
            yield io.BytesIO(data), hashlib.sha256(data).hexdigest()
            return
        elif is_remote(source.location):
            _spool(source, spool)
        else:
            with Path(source.location).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield source.location, digest
            return
        spool.seek(0)
        digest = hashlib.file_digest(spool, "sha256").hexdigest()
        spool.seek(0)
        yield spool, digest


def _spool(source: Source, spool: IO[bytes]) -> None:
    store, name = open_store(_folder(source.location)), _base(source.location)
    while part := store.read_range(name, spool.tell(), 16 << 20):
        spool.write(part)
        if spool.tell() >= (source.bytes or 0):
            return


def _in_folder(location: str) -> dict[str, Source]:
    found = {}
    for name, size in open_store(location).list():
        hidden = name.startswith(".") or "/." in name
        if not hidden and Path(name).suffix.lower() in VIDEO_SUFFIXES:
            found[name] = Source(name=name, location=join(location, name), bytes=size)
    return found


def _in_list(location: str) -> dict[str, Source]:
    """Relative lines are relative to the list; blank lines and those after a # are left out."""
    folder = _folder(location)
    text = open_store(folder).read(_base(location))
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError:
        raise ValueError(
            f"SRC {location}: neither a folder, a video, nor a UTF-8 list of one path per line"
        ) from None
    found = {}
    for line in (line.strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        absolute = "://" in line or line.startswith("/")
        where = line if absolute else join(folder, line)
        local = None if "://" in where else Path(where)
        size = local.stat().st_size if local and local.is_file() else None
        found[line] = Source(name=line, location=where, bytes=size)
    return found


def _folder(location: str) -> str:
    """The location of the folder that holds it."""
    if "://" in location:
        return location.rpartition("/")[0]
    return str(Path(location).parent)


def _base(location: str) -> str:
    return location.rpartition("/")[2]
