"""What the numbers of a model's fields may be."""

from __future__ import annotations

from collections.abc import Mapping


def require_least(config: object, least: Mapping[str, int], what: str = "an integer of ") -> None:
    """Raises ValueError for the first field of `config` that is less than it may be at least.

    what: of the message, before the least value.
    """
    for name, minimum in least.items():
        value = getattr(config, name)
        if value < minimum:
            raise ValueError(f"{name}={value!r}: must be {what}{minimum} or more")
