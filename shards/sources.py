"""Which sources an ingest reads: those below a folder, or those a list file names.

A source's identity is its path relative to the folder (or its line in the list), so a dataset does
not depend on where its videos happen to lie. Folders and lists may be local or on `s3://`; a list
may also name `http(s)://` URLs.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import itertools
import random
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from shards.recipe import Reads
from shards.storage import Store, is_remote, join, open_store

_CONTAINERS = (
    "3gp avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"  # what people film in
)
SUFFIXES: dict[Reads, tuple[str, ...]] = {
    "video": tuple(f".{name}" for name in _CONTAINERS.split()),
    "strip": (".jpg", ".jpeg", ".png"),
    "archive": (".tar", ".tar.bz2", ".tar.gz", ".tar.xz"),
    "gif": (".gif",),
    "chair": (".png",),
}
LIST_SUFFIXES = frozenset((".txt", ".list", ".lst"))
IN_MEMORY_BYTES = 256 << 20
"""Up to here a video is read whole, in one go; a larger one is read from a local file."""
PART_BYTES = 16 << 20
HTTP_TIMEOUT_S = 60.0
HTTP_ATTEMPTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One video, strip or archive.

    name: its identity. location: where to read it. bytes: None when not known. label: its class,
    where that is not the folder it lies in.

    What is known of it before it is read: attributes, (name, value) each; caption; directed: the
    caption goes on with the way in which somebody moves (see `shards.direction`); spans: the runs
    of frames that count, (first, behind the last) each, ascending and apart; none for all.
    """

    name: str
    location: str
    bytes: int | None = None
    label: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    caption: str | None = None
    directed: bool = False
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def id(self) -> str:
        """16 hex digits of the name's sha256: the first part of its clips' keys."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    @property
    def known(self) -> list[Any]:
        """What is known of it and decides on its clips, as plain JSON; empty for nothing."""
        known = (self.attributes, self.caption, self.directed, self.spans)
        return list(known) if any(known) else []

    @property
    def labels(self) -> list[str]:
        """Its class: the folder it lies in, when that is below the ingest's, the usual layout."""
        if self.label is not None:
            return [self.label]
        folder = "" if "://" in self.name else self.name.rpartition("/")[0]
        return [folder.rpartition("/")[2]] if folder else []


def find_sources(location: str, reads: Reads = "video") -> list[Source]:
    """The sources of a folder or a list file, sorted by name.

    A folder is searched to any depth for names with the suffix of what is read, hidden ones left
    out. Raises FileNotFoundError when nothing is there, and ValueError when there is none in it.
    """
    if not is_remote(location) and not Path(location).exists():
        raise FileNotFoundError(f"SRC {location}: no such folder or list file")
    suffixes = SUFFIXES[reads]
    listed = Path(location).suffix.lower() in LIST_SUFFIXES
    single = location.lower().endswith(suffixes)
    if single and (is_remote(location) or Path(location).is_file()):
        size = None if is_remote(location) else Path(location).stat().st_size
        return [Source(name=_base(location), location=location, bytes=size)]
    if not (listed if is_remote(location) else Path(location).is_file()):
        found = _in_folder(location, suffixes)
        asked = f"no file below it ends in one of {' '.join(sorted(suffixes))}"
    else:
        found = _in_list(location)
        asked = f"the list has no line that names {'an' if reads == 'archive' else 'a'} {reads}"
    if not found:
        raise ValueError(f"SRC {location}: no {reads}s ({asked})")
    return sorted(found.values(), key=lambda source: source.name)


def parts_of(source: Source, moved: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """The content, once, front to back; `moved` is called after each part. Raises OSError."""
    if source.location.startswith(("http://", "https://")):
        parts = _parts_of_url(source.location)
    elif "://" in source.location:
        store, name = open_store(_folder(source.location)), _base(source.location)
        parts = _parts_of_object(store, name)
    else:
        parts = _parts_of_file(source.location)
    for part in parts:
        moved()
        yield part


def read_beside(source: Source, name: str) -> bytes | None:
    """The content of the file `name` in the source's folder; None where there is none."""
    if source.location.startswith(("http://", "https://")):
        return None
    try:
        return open_store(_folder(source.location)).read(name)
    except FileNotFoundError:
        return None


@contextmanager
def open_source(
    source: Source, moved: Callable[[], None] = lambda: None
) -> Iterator[tuple[BinaryIO | str, str]]:
    """(what to decode, sha256 of the content in hex); `moved` is called after each part of it.

    Raises FileNotFoundError, and OSError when it cannot be read: what comes over a network has then
    been asked for several times.
    """
    if "://" in source.location:
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as spool:
            digest = _fetched(source, spool, moved)
            spool.seek(0)
            yield cast(BinaryIO, spool), digest
    elif (source.bytes or 0) <= IN_MEMORY_BYTES:
        data = Path(source.location).read_bytes()
        yield io.BytesIO(data), hashlib.sha256(data).hexdigest()
    else:
        yield source.location, _copied(parts_of(source, moved), None)


def _fetched(source: Source, spool: IO[bytes], moved: Callable[[], None]) -> str:
    """Copies a remote source to `spool`; returns its sha256."""
    if not source.location.startswith(("http://", "https://")):
        return _copied(parts_of(source, moved), spool)  # the store tries again itself
    for attempt in itertools.count(1):
        spool.seek(0)
        spool.truncate()
        try:
            return _copied(parts_of(source, moved), spool)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise FileNotFoundError(f"{source.location}: HTTP {error.code}") from None
            if attempt == HTTP_ATTEMPTS or error.code not in (408, 429, 500, 502, 503, 504):
                raise
        except (OSError, http.client.HTTPException) as error:
            if attempt == HTTP_ATTEMPTS:
                raise OSError(f"{source.location}: {error or type(error).__name__}") from None
        time.sleep(random.uniform(0, 2**attempt / 4))
    raise AssertionError("unreachable")


def _copied(parts: Iterator[bytes], to: IO[bytes] | None) -> str:
    """The sha256 in hex of `parts`, written to `to` in passing."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        if to is not None:
            to.write(part)
    return digest.hexdigest()


def _parts_of_file(path: str) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        while part := file.read(PART_BYTES):
            yield part


def _parts_of_object(store: Store, name: str) -> Iterator[bytes]:
    offset = 0
    while part := store.read_range(name, offset, PART_BYTES):
        yield part
        offset += len(part)
        if len(part) < PART_BYTES:
            return


def _parts_of_url(url: str) -> Iterator[bytes]:
    with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as response:
        promised = response.headers.get("Content-Length")
        seen = 0
        while part := response.read1(PART_BYTES):
            seen += len(part)
            yield part
    if promised is not None and seen < int(promised):
        raise OSError(f"ended after {seen} of {promised} bytes")


def _in_folder(location: str, suffixes: tuple[str, ...]) -> dict[str, Source]:
    found = {}
    for name, size in open_store(location).list():
        hidden = name.startswith(".") or "/." in name
        if not hidden and name.lower().endswith(suffixes):
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
            f"SRC {location}: neither a folder, a source, nor a UTF-8 list of one path per line"
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
