"""The promises that packaging makes to someone who clones the repository anywhere."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
}
EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = [*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["docs"], *EXTRAS["server"]]


@pytest.mark.parametrize("line", [x for x in REQUIRED if not x.startswith(PROJECT["name"])])
def test_requirement_of_ours_is_pinned_inside_its_range(line: str) -> None:
    requirement = Requirement(line)
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_pins_name_no_build_of_one_machine() -> None:
    local = [name for name, version in PINS.items() if "+" in version]
    assert local == []


PACKAGES = ("orchestrator", "models", "shards", "cluster")
# Asked for where they are used, with a word of what to install; and types, which nothing runs.
OPTIONAL = {"onnxruntime", "mypy_boto3_s3"}


def imported() -> set[str]:
    """What is neither ours nor Python's own and is imported anywhere in our packages."""
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    tops = {name.partition(".")[0] for name in names}
    return tops - sys.stdlib_module_names - {*PACKAGES} - OPTIONAL


def installed_with(lines: list[str]) -> set[str]:
    """The distributions that pip installs for these requirements, by what is installed here."""
    out: set[str] = set()
    asked: set[tuple[str, str]] = set()
    todo = [(Requirement(line), "") for line in lines]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras}:
            if (name, wanted) in asked:
                continue
            asked.add((name, wanted))
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue  # for another platform
            out.add(name)
            todo += [(Requirement(line), wanted) for line in needs]
    return out


def test_all_that_is_imported_is_installed_without_the_tools_of_developers() -> None:
    there = installed_with(PROJECT["dependencies"])
    owners = metadata.packages_distributions()
    missing = {
        module
        for module in imported()
        if not there & {canonicalize_name(name) for name in owners.get(module, [])}
    }
    assert missing == set()


LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
CLEAN_ROOMS = {
    "orchestrator": (
        "run",
        "train",
        "loop",
        "checkpoint",
        "tracking",
        "experiments",
        "config",
        "site",
    ),
    "orchestrator/sweeping": (
        *("start", "tuning", "driver", "progress", "report", "conduct", "gallery", "plots"),
        *("contour", "importance", "drawing", "plan", "search", "rows", "journal", "space"),
    ),
    "orchestrator/comparing": (
        *("runs", "page", "table", "text", "comparison", "histories", "thumbnails", "curves"),
    ),
    "orchestrator/studying": ("server", "clips", "table", "report", "answers", "plan", "limits"),
    "models": ("vgan",),
    "shards": ("read",),
    "cluster": ("local",),
}
VIOLATIONS = {  # one for each contract, in the order of pyproject.toml
    "models/vgan.py": "import shards.read\nimport ray\n",
    "orchestrator/loop.py": "import orchestrator.train\n",
    "orchestrator/sweeping/rows.py": "import orchestrator.sweeping.plots\n",
    "orchestrator/comparing/curves.py": "import orchestrator.comparing.page\n",
    "orchestrator/studying/plan.py": "import orchestrator.studying.report\n",
    "orchestrator/config.py": "def late():\n    import ray\n",
    "cluster/local.py": "import mlflow\n",
    "shards/read.py": "import ray\n",
    "orchestrator/run.py": "import mlflow\n",
}


def test_contracts_break_for_every_kind_of_forbidden_import(tmp_path: Path) -> None:
    for package, rooms in CLEAN_ROOMS.items():
        for room in ("__init__", *rooms):
            (tmp_path / package).mkdir(exist_ok=True, parents=True)
            (tmp_path / package / f"{room}.py").touch()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())

    def broken() -> int:
        command = [sys.executable, "-c", LINT, "--no-cache"]
        answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        summary = re.search(r"Contracts: \d+ kept, (\d+) broken", answer.stdout)
        assert summary, answer.stdout + answer.stderr
        return int(summary[1])

    assert broken() == 0
    for path, text in VIOLATIONS.items():
        (tmp_path / path).write_text(text)
    assert broken() == len(SETTINGS["tool"]["importlinter"]["contracts"])
