"""The example `laptop-kind` on a node that runs its pods: what it installs works, and trains."""

import errno
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import yaml

from cluster.service import free_port
from tests.helm.manifests import changed, example
from tests.kubernetes.api import until
from tests.kubernetes.cluster import SECRETS
from tests.kubernetes.pods.machine import ADDRESS
from tests.kubernetes.pods.operator import Operator
from tests.kubernetes.test_docs import block

pytestmark = pytest.mark.timeout(900)
NAMESPACE, NAME = "training", "training-orchestrator"
USERS = SECRETS["mlflow-users"]
# Of a trial, whose database is the chart's.
DATABASE = {"uri": f"postgresql+psycopg2://mlflow:b@{NAME}-postgresql:5432/mlflow", "password": "b"}
STEPS = 60
RAY_NEEDS = {"ray-head", "dashboard", "s3", "mlflow"}
# Prints 0 or the error's number for each HOST:PORT.
PROBE = """
import socket, sys
for each in sys.argv[1:]:
    host, port = each.split(":")
    with socket.socket() as s:
        s.settimeout(5)
        print(s.connect_ex((host, int(port))))
"""
TOLD = [("FINISHED", list(range(10, STEPS + 1, 10)))]  # every tenth step
RUN = ("vgan_unfiltered", "--scale", "laptop", "data.name=demo", f"budget.steps={STEPS}")


@pytest.fixture(scope="module")
def values(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a site: the example with Ray's autoscaler, and where DNS and API server are."""
    api_server = {"cidrs": [f"{ADDRESS}/32"], "ports": [operator.person.plane.port]}
    site = changed(
        example("laptop-kind"),
        ray__autoscaling={"enabled": True, "idleSeconds": 30},
        workers__0__min=0,
        network={"dnsCidrs": [f"{ADDRESS}/32"], "egress": {"apiServer": api_server}},
    )
    path = tmp_path_factory.mktemp("site") / "site.yaml"
    path.write_text(yaml.safe_dump(site))
    return str(path)


@pytest.fixture(scope="module")
def trial(operator: Operator, values: str, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """The cluster with the chart installed, as the page of docs says."""
    told(operator, "kubectl", "create", "namespace", NAMESPACE)
    for secret, texts in {**SECRETS, "mlflow-database": DATABASE}.items():
        body = {"metadata": {"name": secret}, "stringData": texts}
        operator.person.plane.api().create("secrets", NAMESPACE, body)
    for name in ("database", "s3"):
        folder = tmp_path_factory.mktemp("disks") / name
        operator.machine.disk(folder, gib=4)
        spec = {
            "capacity": {"storage": "20Gi"},  # what the example asks for
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": str(folder)},
        }
        body = {"metadata": {"name": name}, "spec": spec}
        operator.person.plane.api().create("persistentvolumes", "", body)
    ours(operator, "install", "--values", values)
    return operator


def ours(operator: Operator, *words: str) -> str:
    """`python -m cluster.kubernetes ...`, which ends with 0."""
    return told(operator, "python", "-m", "cluster.kubernetes", *words)


def told(operator: Operator, *command: str) -> str:
    """What a command prints, which ends with 0."""
    done = operator.person.run(*command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{state(operator)}"
    return done.stdout


def state(operator: Operator) -> str:
    """What pods there are, and what has happened."""
    show = [["get", "pods", "--output=wide"], ["get", "events", "--sort-by=.lastTimestamp"]]
    lines = [
        operator.person.run("kubectl", "--namespace", NAMESPACE, *each).stdout for each in show
    ]
    return "\n".join(lines)


@contextmanager
def forwarded(operator: Operator, service: str, port: int) -> Iterator[str]:
    """The URL of a service on this machine, by `kubectl port-forward`."""
    here = free_port()
    command = ["kubectl", "-n", NAMESPACE, "port-forward", f"service/{service}", f"{here}:{port}"]
    process = subprocess.Popen(
        command, env=operator.person.environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("Forwarding from 127.0.0.1")
        yield f"http://127.0.0.1:{here}"
    finally:
        process.terminate()
        process.wait()


def runs(url: str) -> list[tuple[str, list[int]]]:
    """(status, steps of a loss) of each of MLflow's runs, asked as the runs' user."""
    with requests.Session() as session:
        session.trust_env = False
        session.auth = (USERS["runs-username"], USERS["runs-password"])

        def asked(path: str, **body: Any) -> Any:
            how = "POST" if body else "GET"
            answer = session.request(how, f"{url}/api/2.0/mlflow/{path}", json=body or None)
            answer.raise_for_status()
            return answer.json()

        found = asked("experiments/search?max_results=100")["experiments"]
        ids = [each["experiment_id"] for each in found]
        told = []
        for run in asked("runs/search", experiment_ids=ids).get("runs", []):
            of = f"run_id={run['info']['run_id']}&metric_key=train/g_loss"
            points = asked(f"metrics/get-history?{of}").get("metrics", [])
            told.append((run["info"]["status"], [point["step"] for point in points]))
        return told


def pods(operator: Operator, **labels: str) -> dict[str, tuple[str, str]]:
    """{component: (name, address)} of the pods that have the labels."""
    chosen = ",".join(f"orchestrator/{name}={value}" for name, value in labels.items())
    found = operator.person.plane.api().list("pods", namespace=NAMESPACE, labels=chosen)
    return {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: (
            pod["metadata"]["name"],
            pod["status"]["podIP"],
        )
        for pod in found
        if "podIP" in pod["status"] and "deletionTimestamp" not in pod["metadata"]
    }


def reached(operator: Operator, namespace: str, pod: str) -> set[str]:
    """What a pod can connect to; the rest is forbidden, and not just deaf.

    `kubelet` is the node's own, which is nobody's need.
    """
    ports = {"postgresql": 5432, "s3": 8333, "mlflow": 5000, "ray-head": 6379}
    there = pods(operator)
    addresses = {name: f"{there[name][1]}:{port}" for name, port in ports.items()}
    addresses |= {"dashboard": f"{there['ray-head'][1]}:8265", "kubelet": f"{ADDRESS}:10250"}
    words = ["kubectl", "-n", namespace, "exec", pod, "--", "python", "-c", PROBE]
    answers = told(operator, *words, *addresses.values()).split()
    assert set(answers) <= {"0", str(errno.EHOSTUNREACH)}, answers
    return {name for name, answer in zip(addresses, answers, strict=True) if answer == "0"}


def test_pods_reach_what_they_need_and_strangers_nothing(trial: Operator) -> None:
    there = pods(trial)
    assert reached(trial, NAMESPACE, there["mlflow"][0]) == {"mlflow", "postgresql", "s3"}
    assert reached(trial, NAMESPACE, there["ray-head"][0]) == RAY_NEEDS
    told(trial, "kubectl", "create", "namespace", "stranger")
    image = "--image=video-orchestrator:0.1.0-cpu"
    told(trial, "kubectl", "-n", "stranger", "run", "stranger", image, "--", "sleep", "infinity")
    told(trial, "kubectl", "-n", "stranger", "wait", "--for=condition=Ready", "pod/stranger")
    assert reached(trial, "stranger", "stranger") == {"kubelet"}


def test_mlflow_answers_whom_it_knows(trial: Operator) -> None:
    with forwarded(trial, f"{NAME}-mlflow", 5000) as url:
        assert requests.get(f"{url}/api/2.0/mlflow/experiments/search").status_code == 401
        assert runs(url) == []


def test_cluster_that_stays_takes_a_job_by_the_lines_of_the_page(trial: Operator) -> None:
    forward, url, token, submit = block("Jobs")
    assert submit.startswith("ray job submit -- ")
    ready = "until ray job list >/dev/null 2>&1; do sleep 0.5; done"
    demo = "ray job submit -- python -m shards.demo s3://shards/demo --videos=8 --seconds=6"
    lines = ["trap 'kill $!' EXIT", forward, url, token, ready, demo]
    text = told(trial, "bash", "-c", "\n".join(lines))
    assert re.search(r"Job 'raysubmit_\w+' succeeded", text)


def test_job_goes_on_where_it_was_when_its_worker_pod_is_told_to_go(trial: Operator) -> None:
    """SIGTERM, Ray's drain, the notice, a checkpoint, a new pod: all within its grace period."""
    job = trial.person.begin("submit", *RUN)
    until(lambda: "step 10/" in job.output, "steps", seconds=400, otherwise=lambda: state(trial))
    (worker, _) = pods(trial, group="cpu")["ray-worker"]
    told(trial, "kubectl", "-n", NAMESPACE, "delete", "pod", "--wait=false", worker)
    until(lambda: "attempt 2" in job.output, "another", seconds=400, otherwise=lambda: state(trial))
    (worker, _) = pods(trial, group="cpu")["ray-worker"]
    assert reached(trial, NAMESPACE, worker) == RAY_NEEDS
    assert job.wait(400) == 0, job.output + state(trial)
    saved = re.search(r"a node is being taken away: saved at step (\d+)", job.output)
    assert saved, job.output
    assert f"attempt 2, 1 worker(s), from step {saved[1]} to {STEPS}" in job.output
    with forwarded(trial, f"{NAME}-mlflow", 5000) as url:
        assert runs(url) == TOLD
    # Which it had none of before, and now has nothing to do.
    until(
        lambda: not pods(trial, group="cpu"),
        "the end of the workers",
        seconds=240,
        otherwise=lambda: state(trial),
    )


def test_sweep_has_the_autoscaler_bring_what_a_trial_needs(trial: Operator) -> None:
    words = ("--scale", "laptop", "data.name=demo", "budget.steps=20", "resources.num_workers=1")
    job = trial.person.begin("submit", "sweep", "vgan_lambda", "sweep.trials=1", *words)
    assert job.wait(600) == 0, job.output + job.errors + state(trial)
    with forwarded(trial, f"{NAME}-mlflow", 5000) as url:
        ended = [(status, steps[-1]) for status, steps in runs(url) if steps]
    assert sorted(ended) == [("FINISHED", 20), ("FINISHED", STEPS)]


def test_upgrade_keeps_the_runs_and_down_keeps_the_volumes(trial: Operator, values: str) -> None:
    with forwarded(trial, f"{NAME}-mlflow", 5000) as url:
        before = runs(url)
    ours(trial, "install", "--values", values)
    with forwarded(trial, f"{NAME}-mlflow", 5000) as url:
        assert runs(url) == before
        assert all(one in before for one in TOLD)
    ours(trial, "down")
    left = told(trial, "kubectl", "-n", NAMESPACE, "get", "pods,pvc,secrets", "--output=name")
    kept = {f"persistentvolumeclaim/data-{NAME}-{each}-0" for each in ("postgresql", "s3")}
    assert kept | {f"secret/{name}" for name in SECRETS} <= set(left.split())
