"""What a run's numbers come from besides its experiment and its data: code, packages, device."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

CODE_TAG = "orchestrator.code."  # and the code's digest: the commit, of every code that drove a run
DEVICE_TAG = "orchestrator.device"
PACKAGES = "provenance/packages.txt"
MOST_DIFF = 4 << 20  # bytes; beyond it, what differs is not code
_ROOT = Path(__file__).parent.parent
_CODE = ("models", "orchestrator", "shards", "cluster", "pyproject.toml", "constraints.txt")


def git_commit() -> str:
    """The project's commit, with `+dirty` where files differ; `unknown` outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD").decode().strip()
        changes = _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+dirty" if changes else "")


@cache
def code_digest() -> str:
    """A hash of the text of our packages, as they are installed here: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for package in ("models", "orchestrator", "shards"):
        for path in sorted((_ROOT / package).glob("*.py")):
            digest.update(f"{package}/{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def diff_name(digest: str) -> str:
    """The artifact with what the code of that digest changed in its commit."""
    return f"provenance/{digest}.diff"


def code_diff(root: Path = _ROOT) -> bytes | None:
    """What our packages differ by from their commit, as `git apply` takes it, new files too.

    Empty where nothing does; None outside a checkout, and beyond MOST_DIFF.
    """
    try:
        text = _git("diff", "HEAD", "--binary", "--", *_CODE, root=root)
        new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *_CODE, root=root)
        for name in filter(None, new.decode().split("\0")):
            text += _git("diff", "--no-index", "--binary", "--", "/dev/null", name, root=root)
    except (OSError, subprocess.CalledProcessError):
        return None
    return text if len(text) <= MOST_DIFF else None


def packages() -> dict[str, str]:
    """{name: version} of all that is installed here, names in lower case with hyphens."""
    return {
        found.metadata["Name"].lower().replace("_", "-"): found.version
        for found in importlib.metadata.distributions()
        if found.metadata["Name"]
    }


def write_packages() -> bytes:
    """`packages()` as a file that pip takes."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages().items())).encode()


def read_packages(text: str) -> dict[str, str]:
    """What `write_packages` wrote."""
    pairs = (line.partition("==") for line in text.splitlines())
    return {name: version for name, _, version in pairs if version}


def device_name(device: torch.device) -> str:
    """What computes, as exactly as its rounding depends on it: the GPU's model, or the CPU's and
    the instructions that torch chose for it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = "CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        model = next((value.strip() for name, _, value in lines if "model name" in name), model)
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def _git(*arguments: str, root: Path = _ROOT) -> bytes:
    """What git prints. Raises CalledProcessError where it fails; 1 of a diff is no failure."""
    command: Sequence[str] = ["git", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True)
    if done.returncode and not (done.returncode == 1 and arguments[0] == "diff"):
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout
