"""Byte-reproducible WebDataset tars, and the index beside each that lets a reader seek.

A shard is a plain POSIX (ustar) tar: its members are sorted, regular, owned by 0:0, mode 0644 and
dated 0, so equal samples give equal bytes. Beside `NNNNNN.tar` stands `NNNNNN.idx`, a text file:

    # shards index 1
    <member> TAB <offset of its data> TAB <size in bytes> TAB <crc32c, 8 hex digits>

A sample is the members that share the name up to the first dot (of the last part, where a name has
folders): `<key>.jpg` (the clip as a vertical strip of frames, top to bottom) or `<key>.u8` (raw
uint8, T H W C), and `<key>.json` (provenance).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

import google_crc32c

INDEX_HEADER = "# shards index 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One file of a shard: its name, where its data lies, and the data's crc32c."""

    name: str
    offset: int
    size: int
    crc32c: int

    @property
    def key(self) -> str:
        """The sample's key: the name up to the first dot of its last part."""
        return split_name(self.name)[0]

    @property
    def extension(self) -> str:
        """What follows that dot."""
        return split_name(self.name)[1]


def split_name(name: str) -> tuple[str, str]:
    """(key, extension) of a member, as WebDataset splits it: folders belong to the key."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension


def write_tar(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> list[Member]:
    """Writes `members` (name, data), already sorted by name, as a tar; returns their index.

    Raises ValueError when the names are not strictly increasing: order is part of the format.
    """
    written: list[Member] = []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            if written and name <= written[-1].name:
                raise ValueError(f"member {name!r} does not sort after {written[-1].name!r}")
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o644
            offset = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(info, io.BytesIO(data))
            crc = int(google_crc32c.value(data))
            written.append(Member(name=name, offset=offset, size=len(data), crc32c=crc))
    return written


def format_index(members: Iterable[Member]) -> bytes:
    """The text of an index file."""
    lines = [INDEX_HEADER]
    lines += [f"{m.name}\t{m.offset}\t{m.size}\t{m.crc32c:08x}" for m in members]
    return ("\n".join(lines) + "\n").encode("ascii")


def parse_index(text: bytes, *, where: str) -> list[Member]:
    """The members of an index file; `where` names it in messages.

    Raises ValueError for another format or version, or a line that does not parse.
    """
    header, _, body = text.decode("ascii").partition("\n")
    if header != INDEX_HEADER:
        raise ValueError(f"{where}: not an index this version reads (want {INDEX_HEADER!r})")
    members = []
    for number, line in enumerate(body.splitlines(), start=2):
        try:
            name, offset, size, crc = line.split("\t")
            members.append(
                Member(name=name, offset=int(offset), size=int(size), crc32c=int(crc, 16))
            )
        except ValueError:
            raise ValueError(f"{where}:{number}: not an index line: {line!r}") from None
    return members
