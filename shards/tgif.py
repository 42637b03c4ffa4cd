"""TGIF as published: `tgif-v1.0.tsv`, an address and a sentence a line, and the gifs in a folder.

    https://38.media.tumblr.com/9f6c25cc350f/tumblr_mevmyaKtDf1rgvhr8o1_500.gif	a man is glaring.

A gif is looked for by the address's last part, wherever it lies in SRC; nothing is fetched. Its
caption is the first sentence that the list has of it, with its punctuation set apart.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import re
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

from shards.sources import Source, find_sources, read_beside
from shards.storage import join, open_store
from shards.video import Frame

_LIST = ".tsv"
_GIF = re.compile(r"(?:.*/)?([^/?#]+\.gif)(?:[?#].*)?", re.IGNORECASE)
_TOKEN = re.compile(r"[\w'-]+|[^\w\s]")


def taken(src: str) -> list[Source]:
    """The listed gifs, sorted by name; one that is absent cannot be read.

    src: the list, or a folder with just one. Raises FileNotFoundError and ValueError where there is
    no list or no gif, a line has another form, or none of those listed is there.
    """
    folder = src.rpartition("/")[0] if src.lower().endswith(_LIST) else src
    here: dict[str, Source] = {}
    for source in find_sources(folder, "gif"):
        name = source.name.rpartition("/")[2]
        if name in here:
            raise ValueError(
                f"SRC {folder}: {here[name].name} and {source.name} have the same name; leave one "
                "of them out"
            )
        here[name] = source
    where = _list_at(src)
    captions = _captions(where)
    if not here.keys() & captions.keys():
        raise ValueError(
            f"SRC {folder}: none of the {len(captions)} gifs that {where} lists is there, for "
            f"instance {next(iter(captions))}; SRC may be a folder with both the gifs and the list"
        )
    return [
        Source(
            name=name,
            location=here[name].location if name in here else join(folder, name),
            bytes=here[name].bytes if name in here else None,
            caption=captions[name],
        )
        for name in sorted(captions)
    ]


def has_end(gif: BinaryIO | str) -> bool:
    """Whether a gif ends as one does; of one that is cut off the last picture may be half of one,
    and the decoder does not say so."""
    with Path(gif).open("rb") if isinstance(gif, str) else nullcontext(gif) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 64))
        return file.read().rstrip(b"\0").endswith(b";")


def picked(frames: Iterable[Frame], count: int, name: str) -> list[Frame]:
    """Of the frames `count`, in their order: those whose index, with `name`, has the lowest sha256.

    All of them where there are fewer.
    """
    kept: list[tuple[int, int, Frame]] = []
    for frame in frames:
        digest = hashlib.sha256(f"frame {name} {frame.index}".encode()).digest()
        entry = (-int.from_bytes(digest), frame.index, frame)
        if len(kept) < count:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
    return sorted((frame for _, _, frame in kept), key=lambda frame: frame.index)


def _list_at(src: str) -> str:
    """Where the list is."""
    if src.lower().endswith(_LIST):
        return src
    lists = [name for name, _ in open_store(src).list() if name.lower().endswith(_LIST)]
    if len(lists) != 1:
        found = f"{len(lists)} lists, {', '.join(lists[:3])}" if lists else "no list"
        raise ValueError(
            f"SRC {src}: {found} (*{_LIST}) below it; name tgif-v1.0.tsv itself, or a folder "
            "with it alone and its gifs"
        )
    return join(src, lists[0])


def _captions(where: str) -> dict[str, str]:
    """{name of the gif: caption} in the list's order."""
    name = where.rpartition("/")[2]
    data = read_beside(Source(name=name, location=where), name)
    if data is None:
        raise FileNotFoundError(f"SRC {where}: no such list")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not a list in UTF-8: {error}") from None
    captions: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        address, _, sentence = line.partition("\t")
        parts, words = _GIF.fullmatch(address.strip()), _TOKEN.findall(sentence)
        if parts is None or not words:
            raise ValueError(
                f"{name}, line {number}: {line[:60]!r} is not a gif's address, a tab and a sentence"
            )
        captions.setdefault(parts[1], " ".join(words))
    if not captions:
        raise ValueError(f"{where}: no gif is listed in it")
    return captions
