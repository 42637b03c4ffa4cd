"""What the commands share: how an experiment is named on the line, and how a wrong call ends."""

from __future__ import annotations

import argparse
import sys

from orchestrator.config import Experiment
from orchestrator.experiments import SCALES, resolve


def parser(command: str, doc: str | None, *, name_help: str) -> argparse.ArgumentParser:
    """`python -m orchestrator.<command> [NAME] [path=value ...] [--scale SCALE] [--json]`.

    doc: the command's docstring. name_help: what NAME, an experiment, is to it.
    Parse with `parse_intermixed_args`: options may stand between NAME and overrides.
    """
    out = argparse.ArgumentParser(
        prog=f"python -m orchestrator.{command}", description=doc, allow_abbrev=False
    )
    out.formatter_class = argparse.RawDescriptionHelpFormatter
    out.add_argument("name", nargs="?", help=name_help)
    out.add_argument("overrides", nargs="*", metavar="path=value")
    out.add_argument("--scale", help=f"a named bundle of overrides: {', '.join(SCALES)}")
    out.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return out


def experiment_of(given: argparse.Namespace) -> Experiment | None:
    """The experiment that the parsed line names, with its overrides; None where it names none.

    Raises ValueError naming what is wrong and what is valid.
    """
    if given.name is not None:
        return resolve(given.name, given.scale, given.overrides)
    if given.scale is not None:
        raise ValueError(f"--scale {given.scale}: name an experiment to scale")
    return None


def wrong_call(error: Exception) -> int:
    """Tells the user; the exit status of a call that was wrong."""
    print(f"error: {error}", file=sys.stderr)
    return 2
