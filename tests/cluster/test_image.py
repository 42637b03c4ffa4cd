"""The Dockerfile says what the chart and the constraints say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.manifests import CHART, ROOT, example, pods, render

TEXT = (ROOT / "Dockerfile").read_text()
STEPS = [
    line.split(maxsplit=1)
    for line in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    if line.strip()
]


def _steps(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def test_ray_of_the_image_is_that_of_the_constraints_and_the_chart() -> None:
    (pinned,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    assert f"RAY_VERSION={pinned}" in _steps("ARG")
    assert values["ray"]["version"] == pinned


def test_every_package_of_the_image_is_pinned_by_the_constraints() -> None:
    installs = re.findall(r"pip install [^;&\n]*", TEXT)
    assert installs
    for line in installs:
        assert "-c constraints.txt" in line or "--no-index" in line, line


def test_base_image_is_the_builders_choice_and_one_for_all_stages() -> None:
    bases = [each.split()[0] for each in _steps("FROM")]
    assert set(bases) == {"${PYTHON_IMAGE}", "build"}
    assert "PYTHON_IMAGE" in _steps("ARG"), "required: it has no default"


def test_image_runs_as_the_user_of_the_chart() -> None:
    pytest.importorskip("helm_python", reason="no wheel for this machine: needs Linux x86_64")
    (user,) = _steps("USER")
    for where, pod in pods(render(example("laptop-kind"))):
        security = pod["spec"]["securityContext"]
        assert user == f"{security['runAsUser']}:{security['runAsGroup']}", where
    last = [step for step, _ in STEPS].index("USER")
    assert "RUN" not in [step for step, _ in STEPS[last:]]


def test_build_gets_every_file_that_it_copies_and_no_data() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {word for each in _steps("COPY") if "--from" not in each for word in each.split()[:-1]}
    assert copied == allowed
    for name in copied:
        assert Path(ROOT, name).exists()
