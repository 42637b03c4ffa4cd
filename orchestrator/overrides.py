"""The one way to change an experiment: `override(experiment, ["optim.lr=1e-4"])`.

The command line, sweeps and tests all go through it.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from orchestrator.config import Workers

Frozen = TypeVar("Frozen")


def override(value: Frozen, assignments: Iterable[str]) -> Frozen:
    """An experiment (or a sweep) with every `path=value` applied, left to right, and validated.

    Raises ValueError naming the path, the value, what is valid, and the nearest match. Fields are
    changed together, so that two that are only valid together can be given in any order.
    """
    tree = _Node(value)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r}: an override is path=value, as in optim.lr=1e-4")
        tree.set(path, path.split("."), text)
    changed: Frozen = tree.build()
    return changed


class _Node:
    """A dataclass under change: the values set so far, by field."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.changes: dict[str, Any] = {}

    def set(self, path: str, names: list[str], text: str) -> None:
        name, *rest = names
        given: frozenset[str] = getattr(self.value, "given", frozenset())
        fields = {f.name for f in dataclasses.fields(self.value)} - given
        if name not in fields:
            raise ValueError(f"{path}: no field {name!r}{suggest(name, fields)}")
        current = getattr(self.value, name)
        nested = dataclasses.is_dataclass(current) and not isinstance(current, Workers)
        if nested and rest:
            self.changes.setdefault(name, _Node(current)).set(path, rest, text)
        elif nested:
            inside = sorted(f.name for f in dataclasses.fields(current))
            raise ValueError(f"{path}: name one of its fields: {', '.join(inside)}")
        elif rest:
            raise ValueError(f"{path}: {name!r} has no fields below it")
        else:
            kind = typing.get_type_hints(type(self.value))[name]
            self.changes[name] = parse_value(path, text, kind)

    def build(self) -> Any:
        built = {k: v.build() if isinstance(v, _Node) else v for k, v in self.changes.items()}
        return dataclasses.replace(self.value, **built)


def suggest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean ...? Valid: ...` for a message about an unknown name."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{hint} Valid: {', '.join(names)}"


def parse_value(path: str, text: str, kind: Any) -> Any:
    """`text` as a value of the annotated type `kind`. Raises ValueError naming what is valid."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        options = [k for k in typing.get_args(kind) if k is not type(None)]
        if text.lower() == "none":
            return None
        return parse_value(path, text, options[0])
    if typing.get_origin(kind) is typing.Literal:
        values = {str(v): v for v in typing.get_args(kind)}
        if text not in values:
            raise ValueError(f"{path}={text!r}: must be one of {', '.join(values)}")
        return values[text]
    if kind is Workers:
        return Workers.parse(text)
    if typing.get_origin(kind) is tuple:
        return tuple(parse_value(path, each, typing.get_args(kind)[0]) for each in text.split(","))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{path}={text!r}: must be true or false")
        return text.lower() == "true"
    if kind is str:
        return text
    assert kind in (int, float), f"{path}: no parser for {kind}"
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{path}={text!r}: must be {what}") from None
