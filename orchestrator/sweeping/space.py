"""A search space: which values each dotted path of an experiment may take, written as text.

    optim.lr            log:1e-5..1e-2            between, evenly in its logarithm
    model.latent        20..200                   between; whole where the field is
    model.strokes       2,4,8                     one of these
    model.language      64,128 when model.captions=sentence|aligned

The values are the texts that an override on the command line has, so that a trial is its overrides.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.config import Experiment, flat
from orchestrator.overrides import override, suggest

GRID_MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What a path may be: one of `choices`, or between `low` and `high`, both included.

    when: (another path of the space, the values of it with which this path has a place).
    """

    path: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    when: tuple[str, tuple[str, ...]] | None = None

    def text(self, value: float) -> str:
        """A number of the range as an override has it."""
        return str(int(value)) if self.whole else repr(float(value))

    def at(self, share: float) -> float:
        """The number at a share, 0 to 1, of the range's way."""
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + (self.high - self.low) * share

    def clipped(self, value: float) -> float:
        """The nearest number of the range."""
        return min(max(value, self.low), self.high)

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to try for a check: all choices, or both ends."""
        return self.choices or (self.text(self.low), self.text(self.high))

    def has_place(self, values: Mapping[str, str]) -> bool:
        """Whether the path is to be given a value, when others have these."""
        return self.when is None or values.get(self.when[0]) in self.when[1]


Space = tuple[Domain, ...]


def parse_space(space: Mapping[str, str], experiment: Experiment) -> Space:
    """The domains of `space`, those that others depend on first.

    Raises ValueError naming the path, what is wrong and what is valid: an empty space, a path that
    does not exist, values that are not the field's, a range that is empty, a condition on a path or
    a value that the space does not have.
    """
    if not space:
        raise ValueError("the space is empty: name a path and its values, as in space.optim.lr=...")
    parsed = [_parse(path, text, experiment) for path, text in space.items()]
    by_path = {domain.path: domain for domain in parsed}
    for domain in parsed:
        _require_condition(domain, by_path)
    ordered = tuple(sorted(parsed, key=lambda domain: _depth(domain, by_path)))
    first = {domain.path: domain.ends[0] for domain in ordered}
    for domain in ordered:
        for value in domain.ends:
            given = first | {domain.path: value}
            try:
                override(experiment, assignments(placed(ordered, given)))
            except ValueError as error:
                raise ValueError(f"space.{domain.path}={space[domain.path]!r}: {error}") from None
    return ordered


def assignments(values: Mapping[str, str]) -> list[str]:
    """Values by path as overrides."""
    return [f"{path}={value}" for path, value in values.items()]


def placed(space: Space, values: Mapping[str, str]) -> dict[str, str]:
    """Of `values`, those that have a place beside the others."""
    out: dict[str, str] = {}
    for domain in space:
        if domain.has_place(out):
            out[domain.path] = values[domain.path]
    return out


def grid(space: Space) -> Iterator[dict[str, str]]:
    """Every combination, the last path varying fastest. Raises ValueError where a path is a range,
    or where they are more than GRID_MOST."""
    ranges = [domain.path for domain in space if not domain.choices]
    if ranges:
        raise ValueError(
            f"searcher 'grid' takes lists of values, and {', '.join(ranges)} is a range: write "
            "values with commas, or take sweep.searcher=random or tpe"
        )
    count = 1
    for domain in space:
        count *= len(domain.choices)
    if count > GRID_MOST:
        raise ValueError(f"the grid has {count} points, at most {GRID_MOST} are searched")
    seen = set()
    for values in itertools.product(*(domain.choices for domain in space)):
        point = placed(space, dict(zip((d.path for d in space), values, strict=True)))
        if tuple(point.items()) not in seen:
            seen.add(tuple(point.items()))
            yield point


def _parse(path: str, text: str, experiment: Experiment) -> Domain:
    values, _, condition = (part.strip() for part in text.partition(" when "))
    when = None
    if condition:
        other, _, allowed = condition.partition("=")
        when = (other.strip(), tuple(each.strip() for each in allowed.split("|")))
    wrong = f"space.{path}={text!r}"
    if ".." not in values:
        choices = tuple(each.strip() for each in values.split(",") if each.strip())
        if not choices:
            raise ValueError(f"{wrong}: no values; write 1,2,3 or 1..9 or log:1e-5..1e-2")
        if len(set(choices)) < len(choices):
            raise ValueError(f"{wrong}: a value stands there twice")
        return Domain(path=path, choices=choices, when=when)
    log = values.startswith("log:")
    ends = values.removeprefix("log:").split("..")
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise ValueError(f"{wrong}: a range is LOW..HIGH of two numbers") from None
    if not low < high:
        raise ValueError(f"{wrong}: empty, since {ends[0]} is not below {ends[1]}")
    if log and low <= 0:
        raise ValueError(f"{wrong}: a logarithmic range begins above 0")
    whole = isinstance(flat(experiment).get(path), int)
    return Domain(path=path, low=low, high=high, log=log, whole=whole, when=when)


def _require_condition(domain: Domain, by_path: Mapping[str, Domain]) -> None:
    if domain.when is None:
        return
    other, allowed = domain.when
    if other not in by_path or other == domain.path:
        raise ValueError(f"space.{domain.path}: depends on {other!r}{suggest(other, by_path)}")
    choices = by_path[other].choices
    for value in allowed:
        if value not in choices:
            raise ValueError(
                f"space.{domain.path}: never, since {other}={value} is not in the space"
                f"{suggest(value, choices)}"
            )


def _depth(domain: Domain, by_path: Mapping[str, Domain]) -> int:
    """How many paths stand before this one; raises ValueError where they stand in a circle."""
    depth, seen = 0, {domain.path}
    while domain.when is not None:
        domain = by_path[domain.when[0]]
        if domain.path in seen:
            raise ValueError(f"space.{domain.path}: its condition depends on itself")
        seen.add(domain.path)
        depth += 1
    return depth
