"""Whoever gives commands to a cluster: what is on their PATH, and who they are to the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from tests.helm.manifests import ROOT
from tests.kubernetes.server import BIN, ControlPlane

HELM = ROOT / "var" / "tools" / "helm"


class Background:
    """A command that runs, in a process group as a shell makes one, and what it has said."""

    def __init__(self, argv: list[str], *, environment: dict[str, str], told: Path) -> None:
        self._files = told.with_suffix(".out"), told.with_suffix(".err")
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self._process = subprocess.Popen(
                argv,
                env=environment,
                cwd=told.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Its standard output so far."""
        return self._files[0].read_text()

    @property
    def errors(self) -> str:
        """Its standard error so far."""
        return self._files[1].read_text()

    def interrupt(self, how: signal.Signals = signal.SIGINT) -> None:
        """As Ctrl-C does: it and the programs that it has called."""
        os.killpg(self._process.pid, how)

    def wait(self, seconds: float = 60) -> int:
        """Its exit status. A command that does not end is ended, and fails the test."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise

    def end(self) -> None:
        """Ends it and its programs, unless it has ended."""
        if self._process.poll() is None:
            self.interrupt(signal.SIGKILL)
            self._process.wait(10)


class Person:
    """One with the right to do everything.

    plane: what their commands speak to. home: an empty folder, which becomes theirs.
    """

    def __init__(self, plane: ControlPlane, home: Path) -> None:
        self.plane = plane
        self.home = home
        self._begun: list[Background] = []
        for folder in ("bin", "told"):
            (home / folder).mkdir(parents=True)
        (home / "bin" / "helm").symlink_to(HELM)
        (home / "bin" / "kubectl").symlink_to(BIN / "kubectl")

    def run(
        self, *argv: str, token: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of the person, such as helm or kubectl, to its end."""
        return subprocess.run(
            argv,
            env=self.environment(token=token),
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def ours(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`python -m cluster.kubernetes ...`, to its end."""
        return self.run("python", "-m", "cluster.kubernetes", *words)

    def begin(self, *words: str) -> Background:
        """The same, in the background."""
        begun = Background(
            # A shell's background has Ctrl-C ignored, and its children would have it so too.
            ["env", "--default-signal=INT", "python", "-u", "-m", "cluster.kubernetes", *words],
            environment=self.environment(),
            told=self.home / "told" / uuid.uuid4().hex,
        )
        self._begun.append(begun)
        return begun

    def end(self) -> None:
        """Ends what is in the background still, such as that of a test that failed."""
        while self._begun:
            self._begun.pop().end()

    def environment(self, *, token: str = "") -> dict[str, str]:
        """With which helm and kubectl find this cluster. token: instead of the person's."""
        user = "other" if token else "person"
        path = [self.home / "bin", Path(sys.executable).parent, os.environ["PATH"]]
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("HELM_")},
            "HOME": str(self.home),
            "PATH": ":".join(map(str, path)),
            "PYTHONPATH": str(ROOT),
            "KUBECONFIG": str(self.plane.kubeconfig(user, token=token)),
            "NO_PROXY": f"127.0.0.1,{self.plane.address}",
        }
