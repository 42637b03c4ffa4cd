"""UCF-101 as it is published: `v_ApplyEyeMakeup_g01_c01.avi`, in class folders or all in one.

A split is one of the six official lists: `trainlist01.txt` has lines of `Class/video number`,
`testlist01.txt` of `Class/video`, and `classInd.txt` beside them says which number is which class.
A video is looked for by its name, wherever it lies in SRC. Names are compared without regard to
case: the class HandstandPushups has videos named v_HandStandPushups_g01_c01.avi.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from shards.recipe import ListedSplit, Split
from shards.sources import Source, read_beside
from shards.storage import join

CLASSES = "classInd.txt"
ABSENT_SHARE = 0.05
"""Of a list's videos so many may be absent, or one: each is reported as missing."""
_VIDEO = r"v_([^_/\s]+)_g\d+_c\d+\.\w+"
_NAME = re.compile(_VIDEO)
_LINE = re.compile(rf"([^/\s]+)/({_VIDEO})(?:\s+(\d+))?")
_CLASS = re.compile(r"(\d+)\s+(\S+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class _List:
    """A list, read. videos: {file name in lower case: (path as it stands there, class)}."""

    videos: dict[str, tuple[str, str]]
    classes: list[str]
    digest: str


def find_split(location: str) -> ListedSplit:
    """The list at `location` as a value, read and hashed.

    Raises FileNotFoundError where it or its classInd.txt is not, ValueError for what is no list.
    """
    digest = _read(location).digest
    return ListedSplit(name=_base(location), location=location, digest=digest)


def taken(found: Sequence[Source], src: str, split: Split | None) -> list[Source]:
    """Of the sources `found` at `src` those of the split, or all, with their classes.

    A listed video that is absent is a source, too: one that cannot be read. Raises ValueError where
    names are not UCF-101's, none or too few of the listed are there, or a class has no video.
    """
    if split is None:
        return _with_classes(found, src)
    assert isinstance(split, ListedSplit), "the recipe takes no other"
    listed = _read(split.location)
    here: dict[str, Source] = {}
    for source in found:
        name = _base(source.name).lower()
        if name in here and name in listed.videos:
            raise ValueError(
                f"SRC {src}: {here[name].name} and {source.name} are the same video of UCF-101; "
                "leave one of them out"
            )
        here[name] = source
    absent = [path for name, (path, _) in listed.videos.items() if name not in here]
    there = {label for name, (_, label) in listed.videos.items() if name in here}
    _enough(absent, split, listed, there, src)
    sources = (
        replace(here.get(name, Source(name=path, location=join(src, path))), label=label)
        for name, (path, label) in listed.videos.items()
    )
    return sorted(sources, key=lambda source: source.name)


def _with_classes(found: Sequence[Source], src: str) -> list[Source]:
    sources, other = [], []
    for source in found:
        name = _NAME.fullmatch(_base(source.name))
        if name is None:
            other.append(source.name)
        else:
            folder = "".join(source.labels)  # spells a class as classInd.txt does
            label = folder if folder.lower() == name[1].lower() else name[1]
            sources.append(replace(source, label=label))
    if other:
        raise ValueError(
            f"SRC {src}: {len(other)} of {len(found)} videos are not named as UCF-101's, "
            f"v_Class_g01_c01.avi: {_some(other)}; take them away, or name a list with --split"
        )
    return sources


def _enough(
    absent: list[str], split: ListedSplit, listed: _List, there: set[str], src: str
) -> None:
    """Raises ValueError when too little of the list is at `src`."""
    total, empty = len(listed.videos), sorted(set(listed.classes) - there)
    if len(absent) == total:
        raise ValueError(
            f"SRC {src}: none of the {total} videos that {split.name} lists is there, "
            f"for instance {absent[0]}"
        )
    if empty:
        raise ValueError(
            f"no video of {len(empty)} of the {len(listed.classes)} classes of {CLASSES} is both "
            f"listed by {split.name} and at SRC {src}: {_some(empty)}; to use a part of UCF-101 "
            "only, take its other classes out of copies of both files"
        )
    most = max(1, int(ABSENT_SHARE * total))
    if len(absent) > most:
        raise ValueError(
            f"SRC {src}: {len(absent)} of the {total} videos that {split.name} lists are absent, "
            f"and at most {most} may be: {_some(absent)}"
        )


def _read(location: str) -> _List:
    name = _base(location)
    here = Source(name=name, location=location)
    text, classes = read_beside(here, name), read_beside(here, CLASSES)
    if text is None:
        raise FileNotFoundError(f"--split {location}: no such file")
    if classes is None:
        raise FileNotFoundError(
            f"--split {location}: there is no {CLASSES} beside it; UCF-101 publishes them together"
        )
    numbers = _numbers(classes)
    videos: dict[str, tuple[str, str]] = {}
    for where, line in _lines(text, name):
        label, path, video = _video(line, where, numbers)
        videos[video.lower()] = (path, label)
    if not videos:
        raise ValueError(f"{name}: no video is listed in it")
    digest = hashlib.sha256(text + b"\0" + classes).hexdigest()
    return _List(videos=videos, classes=list(numbers.values()), digest=digest)


def _video(line: str, where: str, numbers: dict[int, str]) -> tuple[str, str, str]:
    """(class as classInd.txt spells it, path, file name) of a line."""
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise ValueError(
            f"{where}: {line[:60]!r} is not a line of UCF-101's lists: Class/v_Class_g01_c01.avi, "
            "in a training list with the class's number after it"
        )
    folder, video, named, number = parts.groups()
    if folder.lower() != named.lower():
        raise ValueError(f"{where}: {video} is not of class {folder!r}")
    spelled = {label.lower(): label for label in numbers.values()}
    label = spelled.get(named.lower())
    if label is None:
        near = difflib.get_close_matches(folder, numbers.values(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where}: class {folder!r} is not in {CLASSES}{hint}")
    if number is not None and numbers.get(int(number)) != label:
        meant = numbers.get(int(number), "no class")
        raise ValueError(f"{where}: {video} is of {label}, but {number} is {meant} in {CLASSES}")
    return label, f"{folder}/{video}", video


def _numbers(text: bytes) -> dict[int, str]:
    """{number: class} of a classInd.txt."""
    numbers: dict[int, str] = {}
    for where, line in _lines(text, CLASSES):
        parts = _CLASS.fullmatch(line)
        if parts is None:
            raise ValueError(f"{where}: {line[:60]!r} is not a number and a class")
        number, label = int(parts[1]), parts[2]
        if number in numbers or label.lower() in map(str.lower, numbers.values()):
            raise ValueError(f"{where}: number {number} or class {label!r} occurs twice")
        numbers[number] = label
    return numbers


def _lines(text: bytes, name: str) -> Iterator[tuple[str, str]]:
    """(place for messages, line) of each line that is not blank."""
    for number, line in enumerate(text.decode("utf-8-sig", "replace").splitlines(), start=1):
        if line.strip():
            yield f"{name}, line {number}", line.strip()


def _base(location: str) -> str:
    return location.rpartition("/")[2]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
