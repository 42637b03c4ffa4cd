"""Weizmann's human actions as published: `daria_walk.avi`, `lena_run1.avi`, in folders or not.

Nine people, ten actions, 93 films: where somebody ran, skipped or walked twice, `run1` and `run2`
are both `run`. `wave1` and `wave2` are two actions: with one arm, with both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from shards.sources import Source

PERSONS = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")
ACTIONS = ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")
_NAME = re.compile(rf"({'|'.join(PERSONS)})_(?:({'|'.join(ACTIONS)})|(run|skip|walk)[12])\.\w+")


def taken(found: Sequence[Source], src: str) -> list[Source]:
    """The sources, each with its person and action. Raises ValueError for names of other films."""
    sources: dict[str, Source] = {}
    other = []
    for source in found:
        film = PurePosixPath(source.name).name
        parts = _NAME.fullmatch(film)
        if parts is None:
            other.append(source.name)
            continue
        if film in sources:
            raise ValueError(
                f"SRC {src}: {sources[film].name} and {source.name} are the same film; leave one "
                "of them out"
            )
        action = parts[2] or parts[3]
        facts = (("person", parts[1]), ("action", action))
        sources[film] = replace(source, label=action, attributes=facts)
    if other:
        raise ValueError(
            f"SRC {src}: {len(other)} of {len(found)} films are not named as Weizmann's, "
            f"daria_walk.avi or lena_run1.avi, with persons {', '.join(PERSONS)} and actions "
            f"{', '.join(ACTIONS)}: {', '.join(other[:3])}; take them away"
        )
    return sorted(sources.values(), key=lambda source: source.name)
