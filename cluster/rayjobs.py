"""A RayJob: what it runs, how it stands, and its log until it ends.

A job is named after the words of its command, so that the same command finds its own job again.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.programs import ProgramError, lines, output

COMMANDS = ("run", "sweep", "ingest")
POLL_S = 3.0
SILENCE_S = 600.0  # of the cluster, after which following ends
READ_S = 300  # after which reading is begun anew: a connection to what is lost may never end
TAIL_TRIES = 5  # to read the log's end, once the job is over
_WORD = re.compile(r"[A-Za-z0-9_.,:=/@%+^-]+")  # as the chart's schema has it
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_EXIT = re.compile(r"entrypoint command failed with exit code (\d+)")  # Ray's own words


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a job runs: `python -m orchestrator.<command> [experiment] arguments ...`."""

    command: str
    experiment: str | None
    arguments: tuple[str, ...]

    @classmethod
    def parse(cls, words: Sequence[str]) -> Work:
        """`[run] NAME ...`, `sweep NAME ...` or `ingest SRC DST ...`.

        Raises ValueError, naming what is wrong, where no job could be made of the words.
        """
        command, rest = "run", list(words)
        if rest and rest[0] in COMMANDS:
            command = rest.pop(0)
        for word in rest:
            if word.startswith("--fresh"):
                raise ValueError(
                    "--fresh: a job that is tried again would begin anew each time; on a cluster "
                    f"that stays: ray job submit -- python -m orchestrator.{command} ... --fresh"
                )
            if not _WORD.fullmatch(word):
                raise ValueError(
                    f"{word!r}: may have letters, digits and _ . , : = / @ % + ^ - only, because "
                    "KubeRay hands a job's command to a shell unquoted"
                )
        if command == "ingest":
            if len(rest) < 2:
                raise ValueError("ingest: name the videos and the dataset: submit ingest SRC DST")
            return cls(command=command, experiment=None, arguments=tuple(rest))
        if not rest or not _NAME.fullmatch(rest[0]):
            found = f"got {rest[0]!r}" if rest else "got nothing"
            raise ValueError(
                f"{command}: its name comes first, {found}; python -m orchestrator.{command} "
                "lists them"
            )
        return cls(command=command, experiment=rest[0], arguments=tuple(rest[1:]))

    @property
    def name(self) -> str:
        """The chart's name of the job: a DNS label of at most 16 characters.

        Overrides of different paths have no order, so theirs does not count.
        """
        words = list(self.arguments)
        if self.experiment is not None:
            overrides = [word for word in words if "=" in word and not word.startswith("-")]
            others = [word for word in words if word not in overrides]
            words = others + sorted(overrides, key=lambda word: word.partition("=")[0])
        text = json.dumps([self.command, self.experiment, *words])
        slug = (self.experiment or self.command).replace("_", "-")[:7].rstrip("-")
        return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def entry(self, *, groups: Sequence[str], retries: int | None) -> dict[str, Any]:
        """What `jobs` of the chart's values says of it. groups: of workers; all when empty."""
        out: dict[str, Any] = {"name": self.name, "command": self.command}
        if self.experiment is not None:
            out["experiment"] = self.experiment
        out["arguments"] = list(self.arguments)
        if groups:
            out["groups"] = list(groups)
        if retries is not None:
            out["backoffLimit"] = retries
        return out


@dataclass(frozen=True, kw_only=True)
class State:
    """How a RayJob stands. deployment and job: KubeRay's and Ray's words; tries: begun so far."""

    uid: str
    deployment: str
    job: str
    message: str
    tries: int

    @classmethod
    def of(cls, rayjob: Mapping[str, Any]) -> State:
        """Of a RayJob as it was read; its `status` is empty at first."""
        status = rayjob.get("status") or {}
        return cls(
            uid=rayjob["metadata"]["uid"],
            deployment=status.get("jobDeploymentStatus") or "New",
            job=status.get("jobStatus") or "",
            message=status.get("message") or status.get("reason") or "",
            tries=int(status.get("failed") or 0) + 1,
        )

    @property
    def is_over(self) -> bool:
        """Whether KubeRay does no more about it."""
        return self.deployment in ("Complete", "Failed", "ValidationFailed")

    @property
    def has_log(self) -> bool:
        """Whether its submitter has been started."""
        return self.is_over or self.deployment == "Running"

    @property
    def exit_status(self) -> int:
        """The command's, of a job that is over: 0 done, 1 it failed, 2 it was wrong."""
        if self.deployment == "Complete" and self.job == "SUCCEEDED":
            return 0
        found = _EXIT.search(self.message)
        wrong = self.deployment == "ValidationFailed" or (found and found[1] == "2")
        return 2 if wrong else 1

    def __str__(self) -> str:
        what = f"{self.deployment}, {self.job}" if self.job else self.deployment
        return what if self.tries == 1 or self.is_over else f"{what} (try {self.tries})"


@dataclass(frozen=True)
class RayJob:
    """One in a namespace, by its full name."""

    name: str
    namespace: str

    def state(self) -> State | None:
        """None where there is none. Raises ProgramError."""
        found = output(self.find())
        return State.of(json.loads(found)) if found.strip() else None

    def find(self) -> list[str]:
        """The command that prints it as JSON, or nothing."""
        argv = ["kubectl", "get", "rayjobs.ray.io", self.name, f"--namespace={self.namespace}"]
        return [*argv, "--output=json", "--ignore-not-found"]

    def delete(self) -> list[str]:
        """The command that ends it and waits until it is gone; its run is told to save."""
        return ["kubectl", "delete", "rayjobs.ray.io", self.name, f"--namespace={self.namespace}"]

    def clear(self, old: State) -> None:
        """Deletes that very one, not one that another call has made in its place since.

        Raises ProgramError.
        """
        path = f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs/{self.name}"
        that = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": old.uid}}
        try:
            output(["kubectl", "delete", f"--raw={path}", "--filename=-"], given=json.dumps(that))
        except ProgramError:
            if self._is_still(old):
                raise
        while self._is_still(old):
            time.sleep(POLL_S)  # KubeRay has its cluster to take down

    def _is_still(self, old: State) -> bool:
        now = self.state()
        return now is not None and now.uid == old.uid

    def submitters(self) -> list[str]:
        """The command that prints the pods that submit it, the newest one last."""
        argv = ["kubectl", "get", "pods", f"--namespace={self.namespace}"]
        newest_last = "--sort-by=.metadata.creationTimestamp"
        return [*argv, f"--selector=job-name={self.name}", newest_last, "--output=name"]

    def read(self, pod: str) -> list[str]:
        """The command that prints the log of a pod, given as `pod/NAME`."""
        argv = ["kubectl", "logs", pod, f"--namespace={self.namespace}", "--timestamps"]
        return [*argv, f"--request-timeout={READ_S}s"]

    def follow(self) -> int:
        """Prints its log until it is over, through broken connections; its exit status.

        Raises ProgramError where the cluster is silent for SILENCE_S.
        """
        log, told, heard, tries = Log(self), "", time.monotonic(), 0
        while True:
            try:
                state = self.state()
            except ProgramError as error:
                if time.monotonic() - heard > SILENCE_S:
                    raise
                told = _tell(told, f"{error}; trying again, the job goes on")
                time.sleep(POLL_S)
                continue
            if state is None:
                _tell(told, f"{self.name}: was deleted")
                return 1
            told = _tell(told, f"{self.name}: {state}")
            whole = not state.has_log or log.show(follow=not state.is_over)
            heard = time.monotonic()
            tries += state.is_over
            if state.is_over and (whole or tries == TAIL_TRIES):
                if state.exit_status != 0:
                    reason = state.message.partition("\n")[0] or str(state)
                    _tell("", f"{self.name}: {reason} The same command goes on with it.")
                return state.exit_status
            time.sleep(POLL_S)


class Log:
    """What a job's submitter prints, each line once however often it is asked for."""

    def __init__(self, job: RayJob) -> None:
        self._job = job
        self._last = ""  # the newest line's time; of fixed width, so that texts compare
        self._seen = 0  # lines of that very time
        self._trouble = ""

    def show(self, *, follow: bool) -> bool:
        """Prints what is new; whether that was all. With `follow` until the pod ends.

        Says what the trouble is, once. A pod that another took the place of is not read.
        """
        try:
            pods = output(self._job.submitters()).split()
            for text in self._lines(pods[-1], follow) if pods else ():
                print(text, flush=True)
        except ProgramError as error:
            if "Client.Timeout" not in str(error):  # which is READ_S
                self._trouble = _tell(self._trouble, f"{self._job.name}: its log: {error}")
            return False
        return True

    def _lines(self, pod: str, follow: bool) -> Iterator[str]:
        """Those not had yet. Raises ProgramError where the connection breaks."""
        argv = self._job.read(pod)
        if follow:
            argv.append("--follow")
        if self._last:
            argv.append(f"--since-time={self._last}")
        again = self._seen
        for line in lines(argv):
            stamp, _, text = line.partition(" ")
            if follow and not line.endswith("\n"):
                continue  # cut off in the middle, and comes whole the next time
            if not stamp[:4].isdigit():
                yield line.rstrip("\n")  # the node's own word, such as that the log was rotated
                continue
            if stamp < self._last:
                continue
            if stamp == self._last and again:
                again -= 1
                continue
            if stamp > self._last:
                self._last, self._seen = stamp, 0
            self._seen += 1
            yield text.rstrip("\n")


def _tell(told: str, text: str) -> str:
    """Says it beside the log, once."""
    if text != told:
        print(text, file=sys.stderr, flush=True)
    return text
