"""Programs in the places of helm and kubectl that record their calls and play back answers."""

import json
import sys
from pathlib import Path
from typing import Any

from cluster.rayjobs import Work

PLAYER = """#!{python} -SE
import json, pathlib, sys
here, program = pathlib.Path(__file__).parent, pathlib.Path(__file__).name
given = sys.stdin.read()
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([program, sys.argv[1:], given]) + "\\n")
answers = json.loads((here / "answers").read_text())
call = [program, *sys.argv[1:]]
mine = next(answers[name] for name in sorted(answers, key=len, reverse=True)
            if call[: len(name.split())] == name.split())
status, out, err = mine.pop(0) if len(mine) > 1 else mine[0]
(here / "answers").write_text(json.dumps(answers))
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""

# Helm's own engine in place of its command, which is not on every machine that runs tests.
RENDERER = """#!{python}
import sys, yaml, helm_python
name, chart = sys.argv[2:4]
values, namespace = {{}}, ""
for option in sys.argv[4:]:
    key, _, value = option.partition("=")
    if key == "--namespace":
        namespace = value
    if key == "--values":
        values |= yaml.safe_load(sys.stdin if value == "-" else open(value))
loaded = helm_python.Chart.load(chart)
try:
    loaded.validate_schema(values)
    out = loaded.render(values, name=name, namespace=namespace)
except helm_python.HelmError as error:
    sys.exit(f"Error: {{error}}")
print("\\n---\\n".join(text for file, text in out.items() if file.endswith(".yaml")))
"""

JOB = "training-orchestrator-" + Work.parse(["vgan_golf"]).name
RENDERED = f"""
apiVersion: ray.io/v1
kind: RayJob
metadata: {{name: {JOB}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: of-the-job}}
spec: {{selector: {{matchLabels: {{orchestrator/owner: {Work.parse(["vgan_golf"]).name}}}}}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: of-the-cluster}}
spec: {{selector: {{matchLabels: {{orchestrator/owner: cluster}}}}}}
"""
MADE = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": JOB, "uid": "u-1"}}


class Programs:
    """helm and kubectl that answer from a list, the last answer again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("helm", "kubectl"):
            self.install(name, PLAYER)
        self.answers: dict[str, list[tuple[int, str, str]]] = {
            "helm get": [(0, "null", "")],
            "helm version": [(0, "v3.10.1+g9f88ccb\n", "")],
            "helm template": [(0, RENDERED, "")],
            "kubectl create": [(0, json.dumps(MADE), "")],
            "kubectl api-versions": [(0, "policy/v1\nray.io/v1\n", "")],
            "kubectl apply": [(0, "", "")],
            "kubectl delete": [(0, "", "")],
            "kubectl get pods": [(0, "pod/first\npod/newest\n", "")],
            "kubectl logs": [(0, "", "")],
        }

    def install(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)

    def play(self, **answers: list[Any]) -> None:
        """kubectl_get=[...], kubectl_get_pods=[...] and so on: texts are printed, dicts are the
        status of a RayJob."""
        for name, given in answers.items():
            self.answers[name.replace("_", " ")] = [
                each if isinstance(each, tuple) else (0, _text(each), "") for each in given
            ]
        (self.folder / "answers").write_text(json.dumps(self.answers))

    def calls(self, start: str = "") -> list[tuple[list[str], str]]:
        """(the words, the standard input) of every call whose first words are these."""
        if not (self.folder / "calls").exists():
            return []
        read = [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        found = [([program, *words], given) for program, words, given in read]
        return [each for each in found if each[0][: len(start.split())] == start.split()]


def _text(answer: str | dict[str, Any] | None) -> str:
    if answer is None:
        return ""
    return answer if isinstance(answer, str) else json.dumps({**MADE, "status": answer})


STAMP = "2026-11-21T10:00:01.200000000Z"
INITIALIZING = {"jobDeploymentStatus": "Initializing"}
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def failed(code: int) -> dict[str, Any]:
    """As KubeRay 1.7 tells of Ray 2.60's job whose command ended so."""
    message = (
        f"Job entrypoint command failed with exit code {code}, last available logs:\nexit code 7"
    )
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": message}
