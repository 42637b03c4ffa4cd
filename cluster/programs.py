"""helm and kubectl: run one, or say in one line why that did not work."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence

# What both print beside the reason: client-go's own log, and warnings.
_NOISE = re.compile(r"^([EWI]\d{4} |warning:|use --debug |level=|$)", re.IGNORECASE)

ENDING_S = 10.0  # that a program has to end after Ctrl-C


class ProgramError(RuntimeError):
    """A program is missing, or ended with an error; the message is one line."""


def output(argv: Sequence[str], *, given: str = "") -> str:
    """What a program prints, with `given` on its standard input. Raises ProgramError."""
    try:
        done = subprocess.run(
            argv, input=given, capture_output=True, encoding="utf-8", errors="replace"
        )
    except OSError as error:
        raise _cannot_run(argv[0], error) from None
    if done.returncode != 0:
        raise _failed(argv[0], done.returncode, done.stderr)
    return done.stdout


def show(argv: Sequence[str]) -> None:
    """Runs a program whose output is the user's. Raises ProgramError."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise _cannot_run(argv[0], error) from None
    try:
        _, stderr = process.communicate()
    except KeyboardInterrupt:  # the program had it too, and helm notes how far the release came
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=ENDING_S)
        raise
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise _failed(argv[0], process.returncode, stderr)


def lines(argv: Sequence[str]) -> Iterator[str]:
    """What a program prints, as it comes; a program that is no longer listened to is ended.

    Raises ProgramError where it ends with an error. A last line without newline comes only when it
    does not.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise _cannot_run(argv[0], error) from None
        line = ""
        with process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.endswith("\n"):
                        yield line
                process.wait()
            finally:
                process.kill()
        if process.returncode != 0:
            errors.seek(0)
            raise _failed(argv[0], process.returncode, errors.read())
        if line and not line.endswith("\n"):
            yield line


def _cannot_run(program: str, error: OSError) -> ProgramError:
    if isinstance(error, FileNotFoundError):
        return ProgramError(f"{program} is not on PATH: install it, and see docs/kubernetes.md")
    return ProgramError(f"{program} cannot be run: {error.strerror}")


def _failed(program: str, status: int, stderr: str) -> ProgramError:
    told = [line.strip() for line in stderr.splitlines() if not _NOISE.match(line.strip())]
    reason = " ".join(told).removeprefix("Error: ").removeprefix("error: ")
    return ProgramError(f"{program}: {reason or f'ended with status {status}'}")
