"""The commands over helm and kubectl, whose places programs take that record and play back."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.kubernetes import main, manifests
from cluster.rayjobs import Work
from cluster.releases import CHART, Release
from tests.cluster.playback import DONE, JOB, RENDERER, STAMP, Programs
from tests.helm.manifests import CRDS, EXAMPLES, ROOT, crd_checks

# What the chart makes of it


@pytest.mark.parametrize("name", EXAMPLES)
def test_rayjob_of_every_example_is_as_the_cluster_takes_it(name: str, programs: Programs) -> None:
    pytest.importorskip("helm_python", reason="no wheel for this machine: needs Linux x86_64")
    programs.install("helm", RENDERER)
    values = str(CHART / "examples" / f"{name}.yaml")
    release = Release(name="r" * 40, namespace="a", chart=str(CHART), values=(values,))
    groups = ["spot", "on-demand"] if name == "eks-spot-64gpu" else []
    work = Work.parse(["vgan_unfiltered", "optim.lr=1e-4", "--scale", "cluster"])
    job, budgets = manifests(release, work, groups=groups, retries=7)
    assert job["spec"]["entrypoint"].startswith("python -m orchestrator.run vgan_unfiltered ")
    assert job["spec"]["entrypoint"].endswith(" optim.lr=1e-4 --scale cluster")
    assert job["spec"]["backoffLimit"] == 7
    assert job["metadata"]["namespace"] == "a"
    assert len(job["metadata"]["name"]) <= 47, "KubeRay's limit"
    made = [group["groupName"] for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    assert made == (
        groups or [each["name"] for each in yaml.safe_load(Path(values).read_text())["workers"]]
    )
    heads = [each for each in budgets if each["metadata"]["name"].endswith("-head")]
    assert len(heads) == 1
    if not CRDS.exists():
        pytest.skip(f"no KubeRay CRDs in {CRDS}")
    crd_checks()["RayJob"](job)


def test_submit_of_what_the_chart_refuses_says_so(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("helm_python", reason="no wheel for this machine: needs Linux x86_64")
    programs.install("helm", RENDERER)
    values = str(CHART / "examples" / "eks-spot-64gpu.yaml")
    assert main(["submit", "vgan_golf", "--values", values, "--groups", "none"]) == 2
    error = capsys.readouterr().err
    assert "group none is none of workers: spot, on-demand, ingest" in error
    assert len(error.splitlines()) == 1
    assert programs.calls("kubectl") == []


# What is sent


def test_submit_plan_prints_what_kubectl_takes_and_sends_nothing(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "vgan_golf", "--plan"]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [each["metadata"]["name"] for each in printed] == [JOB, "of-the-job"]
    assert programs.calls("kubectl") == []


def test_submit_gives_the_chart_the_releases_values_and_the_one_job(programs: Programs) -> None:
    installed = {"storage": {"runsRoot": "s3://r"}, "jobs": [{"name": "other"}]}
    programs.play(helm_get=[json.dumps(installed)])
    main(["submit", "vgan_golf", "--plan", "a=1", "--namespace", "team", "--retries", "0", "b=2"])
    ((got, _),) = programs.calls("helm get")
    assert got[2:] == ["values", "training", "--namespace=team", "--output=json"]
    ((words, given),) = programs.calls("helm template")
    assert words[2:] == ["training", str(CHART), "--namespace=team", "--values=-"]
    values = json.loads(given)
    assert values["storage"] == installed["storage"]
    (job,) = values["jobs"]
    assert (job["command"], job["experiment"]) == ("run", "vgan_golf")
    assert (job["arguments"], job["backoffLimit"]) == (["a=1", "b=2"], 0)


# What is wrong around it


@pytest.mark.parametrize("missing", ["helm", "kubectl"])
@pytest.mark.parametrize("command", [["submit", "vgan_golf"], ["install"], ["status"], ["down"]])
def test_missing_program_is_named(
    missing: str, command: list[str], programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.play(
        kubectl_get=[""], helm_status=[""], **{"kubectl_api-resources": ["rayjobs.ray.io"]}
    )
    (programs.folder / missing).unlink()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {missing} is not on PATH")
    assert len(error.splitlines()) == 1


def test_release_that_is_not_there_is_named_with_the_way_out(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.play(helm_get=[(1, "", "Error: release: not found\n")])
    assert main(["submit", "vgan_golf", "--namespace", "nowhere"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "nowhere" in error
    assert "--values" in error


def test_cluster_that_is_away_is_not_taken_for_one_without_a_release(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    away = "Error: Kubernetes cluster unreachable: connection refused\n"
    programs.play(helm_get=[(1, "", away)])
    assert main(["submit", "vgan_golf"]) == 2
    told = "error: helm: Kubernetes cluster unreachable: connection refused\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("version", "client_side"), [("v3.10.1+g9", False), ("v4.0.1+g9", True)])
def test_install_by_helm_4_leaves_the_lists_of_others_alone(
    version: str, client_side: bool, programs: Programs
) -> None:
    kuberay = {"kubectl_api-resources": ["rayjobs.ray.io"]}
    programs.play(helm_version=[version], helm_upgrade=[""], **kuberay)
    assert main(["install", "--values", "v.yaml"]) == 0
    ((words, _),) = programs.calls("helm upgrade")
    assert ("--server-side=false" in words) is client_side


def test_namespace_that_is_not_there_is_one_line(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    told = 'Error from server (NotFound): error when creating "STDIN": namespaces "x" not found\n'
    programs.play(kubectl_get=[""], kubectl_create=[(1, "", told)])
    assert main(["submit", "vgan_golf", "--values", "v.yaml", "--namespace", "x"]) == 2
    assert capsys.readouterr().err == f"error: kubectl: {told}"


def test_install_asks_for_kuberay_and_the_schema_first(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    kuberay = {"kubectl_api-resources": ["rayclusters.ray.io\nrayjobs.ray.io\n"]}
    programs.play(**{"kubectl_api-resources": [""]})
    assert main(["install", "--values", "v.yaml"]) == 2
    assert "install KubeRay" in capsys.readouterr().err
    programs.play(**kuberay, helm_template=[(1, "", "Error: values don't meet\n- image: required")])
    assert main(["install", "--values", "v.yaml"]) == 2
    assert capsys.readouterr().err == "error: helm: values don't meet - image: required\n"
    assert programs.calls("helm upgrade") == []
    programs.play(**kuberay, helm_template=["x"], helm_upgrade=[(1, "", "Error: timed out")])
    assert main(["install", "--values", "v.yaml"]) == 1
    programs.play(helm_upgrade=["installed"])
    assert main(["install", "--values", "v.yaml"]) == 0


def test_down_ends_jobs_before_what_they_stand_on(programs: Programs) -> None:
    programs.play(helm_status=["{}"], helm_uninstall=[""])
    assert main(["down"]) == 0
    assert [words[:2] for words, _ in programs.calls()] == [
        ["helm", "status"],
        ["kubectl", "delete"],
        ["helm", "uninstall"],
    ]


def test_down_of_no_release_deletes_nothing(programs: Programs) -> None:
    programs.play(helm_status=[(1, "", "Error: release: not found")])
    assert main(["down", "--release", "typo"]) == 2
    assert programs.calls("kubectl") == []


@pytest.mark.parametrize(
    "command", ["render", "install", "status", "down", "logs some-job", "down some-job"]
)
def test_plan_prints_the_calls_as_a_shell_takes_them(
    command: str, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = "/a chart/of $HOME"
    assert main([*command.split(), "--plan", "--chart", chart, "--namespace", "a"]) == 0
    calls = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert programs.calls() == []
    for call in calls:
        assert call[0] in ("helm", "kubectl")
        assert call[1] in ("api-resources", "version") or "--namespace=a" in call
        assert (chart in call) == (call[1] in ("template", "upgrade"))


@pytest.mark.parametrize(
    ("state", "verb"), [("pending-install", "uninstall"), ("pending-upgrade", "rollback")]
)
def test_operation_that_was_cut_off_is_told_with_the_way_out(
    state: str, verb: str, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = "Error: another operation is in progress"
    programs.play(
        helm_upgrade=[(1, "", busy)], helm_status=[json.dumps({"info": {"status": state}})],
        **{"kubectl_api-resources": ["rayjobs.ray.io"]},
    )  # fmt: skip
    assert main(["install", "--values", "v.yaml"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.endswith(f"If nobody else is at it: helm {verb} training --namespace=training")


def test_plan_is_what_is_called(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    programs.play(
        helm_status=["{}"], helm_upgrade=[""], helm_uninstall=[""], kubectl_get=[""],
        **{"kubectl_api-resources": ["rayjobs.ray.io"]},
    )  # fmt: skip
    programs.play(**{"kubectl get rayjobs.ray.io": [DONE], "kubectl get pods": ["pod/NEWEST\n"]})
    for command in ("render", "install", "status", "logs", "down"):
        words = [command, "some-job"] if command == "logs" else [command]
        main([*words, "--plan"])
        planned = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
        before = len(programs.calls())
        main(words)
        if command == "logs":  # of a job that is over: looked for first, and nothing to follow
            planned = [planned[0], planned[0], planned[1], planned[2][:-1]]
        assert [words for words, _ in programs.calls()][before:] == planned
        capsys.readouterr()


@pytest.mark.parametrize("line", ["", "frobnicate", "status extra", "logs", "submit x --retries a"])
def test_wrong_call_is_told_how(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(line.split())
    except SystemExit as error:
        status = int(str(error.code))
    assert status == 2
    assert "usage: " in capsys.readouterr().err


def test_real_programs_know_every_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"kubectl": shutil.which("kubectl"), "helm": shutil.which("helm")}
    if (ROOT / "var" / "tools" / "helm").exists():
        found["helm"] = str(ROOT / "var" / "tools" / "helm")
    if not all(found.values()):
        pytest.skip(f"no command of {[name for name, path in found.items() if not path]} here")
    nobody = {"server": "http://127.0.0.1:9"}  # the discard port, on which nothing listens
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": nobody}],
        "users": [{"name": "a", "user": {}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    release = Release(name="a", namespace="a", chart=str(CHART))
    values = str(CHART / "examples" / "laptop-kind.yaml")
    for command in ("status", "down", "down a-job", "logs a-job", f"install --values {values}"):
        assert main([*command.split(), "--plan"]) == 0
    planned = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    planned += [[*planned[-5], f"--since-time={STAMP}"], Release.given(release)]
    clearing = "/apis/ray.io/v1/namespaces/a/rayjobs/a-job"
    planned += [
        ["kubectl", "delete", f"--raw={clearing}", "--filename=-"],
        ["kubectl", "create", "--filename=-", "--output=json"],
        ["kubectl", "api-versions"],
    ]
    for program, *words in planned:
        done = subprocess.run(
            [found[program] or "", *words],
            input=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}),
            capture_output=True,
            text=True,
        )
        away = "refused" in done.stderr and "unknown" not in done.stderr
        assert away or words[0] in ("template", "version"), (words, done.stderr)


def test_commands_of_the_documentation_are_taken(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    lines = re.findall(r"^python -m cluster\.kubernetes (.*)$", text, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        assert main([*shlex.split(line), "--plan"]) == 0, line
    capsys.readouterr()
