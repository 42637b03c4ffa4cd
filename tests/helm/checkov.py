"""Shows the pods and objects of every example to checkov: `python -m tests.helm.checkov CHECKOV`.

It stands apart from the tests because checkov's requirements contradict this project's, so that it
lives in an environment of its own; `make lint-chart` makes that and calls this.
"""

import subprocess
import sys
from pathlib import Path

import yaml

from tests.helm.manifests import CHART, EXAMPLES, NAMESPACE, Manifest, example, pods, render

# Images of a laptop have no digest: "Image should use digest". Beside its reason in values.yaml.
TRIAL = {"laptop-kind": ["CKV_K8S_43"]}


def shown(manifests: list[Manifest]) -> list[Manifest]:
    """The manifests, with the pods of custom resources, which checkov does not look into."""
    out = [m for m in manifests if not m["apiVersion"].startswith("ray.io")]
    for where, pod in pods([m for m in manifests if m["apiVersion"].startswith("ray.io")]):
        name = where.lower().replace(" ", "-")
        metadata = {**pod["metadata"], "name": name, "namespace": NAMESPACE}
        if where.endswith("submitter"):  # KubeRay makes it a Job
            job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": pod}}
            out.append({**job, "metadata": metadata})
        else:
            out.append({"apiVersion": "v1", "kind": "Pod", **pod, "metadata": metadata})
    return out


def main(checkov: str) -> int:
    """1 if any example fails a rule that CHART/.checkov.yaml does not argue away."""
    code = 0
    folder = Path("var/chart").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLES:
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump_all(shown(render(example(name), all_apis=True))))
        print(name, flush=True)
        command = [checkov, "--config-file", str(CHART / ".checkov.yaml"), "-f", str(path)]
        for check in TRIAL.get(name, []):
            command += ["--skip-check", f"{check},CKV_K8S_35,CKV_K8S_15"]
        code |= subprocess.run(command, check=False).returncode
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
