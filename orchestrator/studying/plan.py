"""What a human study compares, as a value with an id, and what each rater is shown, as a formula.

A *pairs* study is VGAN's (section 3.2, table 1): two random clips side by side, "Which video is
more realistic?", no tie. A *rating* study is Sync-DRAW's (section 4.6, tables 2 and 3): one clip at
a time, 1 to 10. Either has attention checks: a real clip against noise, which must lose, or noise
alone, which must be rated low.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Literal

import numpy as np

from orchestrator.config import require

Mode = Literal["pairs", "rating"]
Rng = np.random.Generator

REAL, STILL_OF = "real", "still of "  # labels of sources that are no run
CHECK, NOISE = "check", "noise"  # the clips of the attention checks, which no table counts
REFERENCE = "reference"  # real clips that a rating begins with, as what earns a 10
RATINGS = range(1, 11)
NOISE_RATING = 3  # a check alone passes with at most this
PASSED = 0.8  # of the checks that a rater answered, to be counted


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where clips come from. label: a run's name, `real`, or `still of <run>`; what tables call it.

    version: the hash of a run's weights, or the dataset's version.
    """

    label: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that decides what raters see, but for who answers.

    comparisons: of a pairs study, the places in `sources` that meet; the table says "the first
    preferred over the second". trials, checks: judgements, and attention checks, of one rater.
    clips: drawn from each source. fps: of every clip, so that speed gives nothing away. seed: of
    the generated clips, and of who sees what.
    """

    mode: Mode
    sources: tuple[Source, ...]
    comparisons: tuple[tuple[int, int], ...]
    trials: int
    checks: int
    clips: int
    fps: float
    seed: int

    def __post_init__(self) -> None:
        rows = len(self.comparisons) if self.mode == "pairs" else len(self.sources)
        most = 1000  # more in one sitting is a slip
        valid = f"from {rows}, one for every row of the table, to {most}"
        require(rows <= self.trials <= most, "--pairs", self.trials, valid)
        require(0 <= self.checks <= self.trials, "--checks", self.checks, "from 0 to --pairs")
        require(1 <= self.clips <= most, "--clips", self.clips, f"from 1 to {most}")
        require(0 <= self.seed < 2**31, "--seed", self.seed, "in [0, 2^31)")

    @property
    def id(self) -> str:
        """12 hex digits: the hash of all fields."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    def length(self) -> int:
        """Trials that one rater answers, checks included."""
        return self.trials + self.checks

    def to_json(self) -> str:
        """The study as JSON that `from_json` reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Study:
        """The study that `to_json` wrote."""
        fields = json.loads(text)
        fields["sources"] = tuple(Source(**source) for source in fields["sources"])
        fields["comparisons"] = tuple((a, b) for a, b in fields["comparisons"])
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One question: the clips' names in the order they are shown, two or one."""

    shown: tuple[str, ...]
    is_check: bool


def compared(runs: int, *, real: bool, stills: bool) -> tuple[tuple[int, int], ...]:
    """The rows of table 1, as places in (runs, real, the runs' stills).

    Every run over every later one, every run over real, and every run over its own still.
    """
    rows = [(a, b) for a in range(runs) for b in range(a + 1, runs)]
    if real:
        rows += [(run, runs) for run in range(runs)]
    if stills:
        rows += [(run, runs + real + run) for run in range(runs)]
    return tuple(rows)


def trials_of(study: Study, clips: Mapping[str, Sequence[str]], rater: int) -> list[Trial]:
    """What the rater of number `rater` is shown, in order: a function of (study, clips, rater).

    clips: names by source's label, and by `check` and `noise`. The rows of the table get equal
    shares, up to one; within a row each side is first equally often, up to one; no clip comes again
    before its source is used up; checks lie one to a stretch of equal length, anywhere in it.
    """
    rng = np.random.default_rng([study.seed, rater])
    pools = {label: _drawn(names, rng) for label, names in sorted(clips.items())}
    labels = [source.label for source in study.sources]
    rows = (
        [(labels[a], labels[b]) for a, b in study.comparisons]
        if study.mode == "pairs"
        else [(label,) for label in labels]
    )
    rows = [rows[i] for i in rng.permutation(len(rows))]
    questions = _asked(rows, study.trials, pools, rng)
    check = (CHECK, NOISE) if study.mode == "pairs" else (NOISE,)
    checks = iter(_asked([check], study.checks, pools, rng))
    stretches = np.array_split(np.arange(len(questions)), study.checks or 1)
    before = {int(rng.choice(stretch)) for stretch in stretches} if study.checks else set()
    trials: list[Trial] = []
    for place, shown in enumerate(questions):
        if place in before:
            trials.append(Trial(shown=next(checks), is_check=True))
        trials.append(Trial(shown=shown, is_check=False))
    return trials


def _asked(
    rows: Sequence[tuple[str, ...]], count: int, pools: Mapping[str, Iterator[str]], rng: Rng
) -> list[tuple[str, ...]]:
    """`count` questions of the rows in turn, sides balanced within a row, in random order."""
    turned = {row: int(rng.integers(2)) for row in rows}
    asked = []
    for row in islice(cycle(rows), count):
        shown = tuple(next(pools[label]) for label in row)
        asked.append(shown[::-1] if turned[row] % 2 else shown)
        turned[row] += 1
    return [asked[i] for i in rng.permutation(count)]


def _drawn(names: Sequence[str], rng: Rng) -> Iterator[str]:
    """The names in random order, then all of them again in another, without end."""
    while True:
        for i in rng.permutation(len(names)):
            yield names[i]
