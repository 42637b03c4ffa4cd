"""KTH's human actions as published: `person01_walking_d1_uncomp.avi`, in class folders or not.

`00sequences.txt`, published beside the videos, says in which frames, from 1, the person is there:

    person01_boxing_d1    frames  1-95, 96-185, 186-245, 246-360
    person13_handclapping_d3  *missing*

Where it lies in SRC only these count. Its runs are not in order everywhere, and some overlap: then
the later one begins behind the earlier, so that no frame is in two clips.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from shards.sources import LIST_SUFFIXES, SUFFIXES, Source, read_beside
from shards.storage import join

ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
DIRECTED = ("jogging", "running", "walking")
"""People cross the picture; the caption says from where to where (Sync-DRAW 2017, 4.5.3)."""
PERSONS = 25
SEQUENCES = "00sequences.txt"
_VIDEO = rf"person(\d\d)_({'|'.join(ACTIONS)})_d([1-4])"
_NAME = re.compile(rf"({_VIDEO})(?:_uncomp)?\.\w+")
_LINE = re.compile(rf"({_VIDEO})\s+(?:frames?\s+(\d+-\d+(?:,\s*\d+-\d+)*),?|\*missing\*)")

Spans = tuple[tuple[int, int], ...]


def chosen(actions: str) -> tuple[str, ...]:
    """Actions named with commas between them, sorted. Raises ValueError for an unknown one."""
    found = sorted({name.strip() for name in actions.split(",")})
    for name in found:
        if name not in ACTIONS:
            near = difflib.get_close_matches(name, ACTIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"--actions: {name!r} is none of {', '.join(ACTIONS)}{hint}")
    return tuple(found)


def taken(found: Sequence[Source], src: str, actions: tuple[str, ...] | None) -> list[Source]:
    """The sources of these actions, or of all, with what their names and the sequences say.

    A video that 00sequences.txt has and that is absent is a source, too: one that cannot be read.
    Raises ValueError where names are not KTH's, an action has no video, or the file is not so.
    """
    videos = _by_name(found, src)
    wanted = actions or tuple(sorted({_action(name) for name in videos}))
    empty = [each for each in wanted if each not in {_action(name) for name in videos}]
    if empty:
        raise ValueError(
            f"SRC {src}: no video of {', '.join(empty)}, for instance person01_{empty[0]}_d1_uncomp"
            f".avi; --actions says which are taken"
        )
    spans = _sequences(src)
    if spans is not None:
        unlisted = sorted(name for name in videos if not spans.get(name))
        if unlisted:
            raise ValueError(
                f"{SEQUENCES}: has no frames of {len(unlisted)} of {len(videos)} videos at "
                f"{src}, for instance {unlisted[0]}; take it away to use all frames of all videos"
            )
        for name in sorted(spans.keys() - videos.keys()):
            path = f"{_action(name)}/{name}_uncomp.avi"
            if spans[name]:
                videos[name] = Source(name=path, location=join(src, path))
    sources = [
        _with_facts(source, name, (spans or {}).get(name, ()))
        for name, source in videos.items()
        if _action(name) in wanted
    ]
    return sorted(sources, key=lambda source: source.name)


def _by_name(found: Sequence[Source], src: str) -> dict[str, Source]:
    """{`person01_walking_d1`: the source}"""
    videos: dict[str, Source] = {}
    other = []
    for source in found:
        parts = _NAME.fullmatch(PurePosixPath(source.name).name)
        if parts is None or not 1 <= int(parts[2]) <= PERSONS:
            other.append(source.name)
        elif parts[1] in videos:
            raise ValueError(
                f"SRC {src}: {videos[parts[1]].name} and {source.name} are the same video of KTH; "
                "leave one of them out"
            )
        else:
            videos[parts[1]] = source
    if other:
        raise ValueError(
            f"SRC {src}: {len(other)} of {len(found)} videos are not named as KTH's, "
            f"person01_walking_d1_uncomp.avi with persons 01 to {PERSONS}, conditions d1 to d4 and "
            f"actions {', '.join(ACTIONS)}: {', '.join(other[:3])}; take them away"
        )
    return videos


def _with_facts(source: Source, name: str, spans: Spans) -> Source:
    person, action = name.split("_")[0].removeprefix("person"), _action(name)
    return replace(
        source,
        label=action,
        attributes=(("person", person), ("action", action)),
        caption=f"person {int(person)} is {action}",
        directed=action in DIRECTED,
        spans=spans,
    )


def _sequences(src: str) -> dict[str, Spans] | None:
    """{`person01_boxing_d1`: the runs of frames that count}; None where there is no such file."""
    single = src.lower().endswith((*LIST_SUFFIXES, *SUFFIXES["video"]))
    here = Source(name=SEQUENCES, location=src if single else join(src, SEQUENCES))
    text = read_beside(here, SEQUENCES)
    if text is None:
        return None
    found: dict[str, Spans] = {}
    for number, line in enumerate(text.decode("utf-8-sig", "replace").splitlines(), start=1):
        where, line = f"{SEQUENCES}, line {number}", line.strip()
        if not line.startswith("person"):
            continue  # what is said above the list
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise ValueError(
                f"{where}: {line[:60]!r} is not a line of KTH's: person01_boxing_d1, `frames`, and "
                "runs as 1-95, 96-185, or *missing*"
            )
        if parts[1] in found:
            raise ValueError(f"{where}: {parts[1]} occurs twice")
        found[parts[1]] = _runs(parts[5] or "", where)
    if not found:
        raise ValueError(f"{SEQUENCES} at {src}: no line says where a person is")
    return found


def _runs(text: str, where: str) -> Spans:
    """`1-95, 90-185` as ((0, 95), (95, 185))."""
    pairs = sorted(tuple(map(int, run.split("-"))) for run in text.split(",") if run.strip())
    runs: list[tuple[int, int]] = []
    for first, last in pairs:
        if not 1 <= first <= last:
            raise ValueError(f"{where}: {first}-{last}: frames count from 1, upwards")
        start = max(first - 1, runs[-1][1] if runs else 0)
        if start < last:
            runs.append((start, last))
    return tuple(runs)


def _action(name: str) -> str:
    return name.split("_")[1]
