"""The commands over helm and kubectl, whose places programs take that record and play back."""

import json
import re
import shlex
import shutil
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import rayjobs
from cluster.kubernetes import CHART, Release, main, manifests
from cluster.rayjobs import Work
from tests.helm.manifests import CRDS, EXAMPLES, ROOT, crd_checks

PLAYER = """#!{python} -SE
import json, pathlib, sys
here, program = pathlib.Path(__file__).parent, pathlib.Path(__file__).name
given = sys.stdin.read()
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([program, sys.argv[1:], given]) + "\\n")
answers = json.loads((here / "answers").read_text())
mine = answers[program + " " + sys.argv[1]]
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
            "helm template": [(0, RENDERED, "")],
            "kubectl apply": [(0, json.dumps(MADE), ""), (0, "", "")],
            "kubectl delete": [(0, "", "")],
            "kubectl logs": [(1, "", 'Error: pods "none" not found')],
        }

    def install(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)

    def play(self, **answers: list[Any]) -> None:
        """kubectl_get=[...]: texts are printed, dicts are the status of a RayJob."""
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


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rayjobs, "POLL_S", 0.0)
    out = Programs(tmp_path)
    out.play()
    return out


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


# What a job is


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("vgan_golf optim.lr=1e-4", "run vgan_golf optim.lr=1e-4"),
        ("run vgan_golf --scale laptop", "run vgan_golf --scale laptop"),
        ("sweep vgan_lambda sweep.trials=3", "sweep vgan_lambda sweep.trials=3"),
        ("ingest s3://a/b s3://c/d --recipe flickr", "ingest s3://a/b s3://c/d --recipe flickr"),
    ],
)
def test_words_name_the_command_run_without_one(words: str, line: str) -> None:
    work = Work.parse(words.split())
    parts = [work.command, *filter(None, [work.experiment]), *work.arguments]
    assert parts == line.split()


def test_name_is_a_label_that_the_same_command_finds_again() -> None:
    lines = [
        "vgan_unfiltered",
        "vgan_unfiltered optim.lr=1e-4",
        "vgan_unfiltered optim.lr=1e-5",
        "vgan_unfiltered optim.lr=1e-4 optim.lr=1e-5",  # the last one of a path wins
        "vgan_unfiltered optim.lr=1e-5 optim.lr=1e-4",
        "vgan_unfiltered --scale laptop",
        "sweep vgan_unfiltered",
        "a",
        "a_________b",
        "ingest SRC DST",
        "ingest DST SRC",
    ]
    names = [Work.parse(line.split()).name for line in lines]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,14}[a-z0-9])?", name), name
        assert "--" not in name
    a, b = (
        Work.parse(["x", "p=1", "--json", "q=2"]),
        Work.parse(["run", "x", "q=2", "p=1", "--json"]),
    )
    assert a.name == b.name


def test_words_that_a_job_takes_are_those_of_the_schema_and_mean_nothing_to_a_shell() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["definitions"]["argument"]
    taken = []
    for character in [*string.printable, "\N{LATIN SMALL LETTER E WITH ACUTE}"]:
        word = f"a{character}b"
        if re.search(schema["pattern"], word):
            assert Work.parse(["x", word]).arguments == (word,)
            taken.append(word)
        else:
            with pytest.raises(ValueError, match="a shell unquoted"):
                Work.parse(["x", word])
    script = "printf '%s\\n' " + " ".join(taken)
    echoed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert echoed.splitlines() == taken


@pytest.mark.parametrize(
    "words",
    [
        ["vgan_golf", "data.name=my videos"],
        ["vgan_golf", "data.name=$(id)"],
        ["vgan_golf", "data.name=a;b"],
        ["vgan_golf", "data.name='a'"],
        ["vgan_golf", "data.name=*"],
        ["vgan_golf", ""],
        ["vgan_golf", "--fresh"],
        ["--scale", "laptop", "vgan_golf"],
        ["Vgan"],
        ["sweep"],
        ["ingest", "s3://only/one"],
        [],
    ],
)
def test_submit_of_wrong_words_is_refused_before_anything_is_called(
    words: list[str], programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert programs.calls() == []


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


def test_submit_follows_to_the_end_and_ends_as_the_command(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "2026-11-21T10:00:00.000000001Z step 1\n2026-11-21T10:00:01.000000000Z step 2\n"
    programs.play(kubectl_get=["", {}, INITIALIZING, RUNNING, DONE], kubectl_logs=[log, ""])
    assert main(["submit", "vgan_golf"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == ["step 1", "step 2"]
    told = [line.partition(": ")[2] for line in err.splitlines()]
    assert told == ["New", "Initializing", "Running, RUNNING", "Complete, SUCCEEDED"]
    job, budget = [given for _, given in programs.calls("kubectl apply")]
    assert yaml.safe_load(job)["kind"] == "RayJob"
    (owner,) = yaml.safe_load(budget)["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": JOB, "uid": "u-1"}


def test_log_that_breaks_off_is_taken_up_where_it_broke(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "2026-11-21T10:00:00.100000000Z one\n",
        "2026-11-21T10:00:01.100000000Z two\n",
        "2026-11-21T10:00:01.200000000Z three\n",
        "2026-11-21T10:00:01.200000000Z three\n",  # the same twice, and meant so
        "2026-11-21T10:00:01.200000000Z four\n",
        "2026-11-21T10:00:02.000000000Z  five, indented\n",
    ]
    programs.play(
        kubectl_get=["", RUNNING, RUNNING, RUNNING, DONE],
        kubectl_logs=[
            (1, "".join(lines[:3]) + lines[3][:-4], "connection reset"),
            (1, "", "Unable to connect to the server"),
            (0, "".join(lines[1:5]), ""),  # the server goes by whole seconds
            (0, "".join(lines[1:]), ""),
        ],
    )
    assert main(["submit", "vgan_golf"]) == 0
    printed = capsys.readouterr().out.splitlines()[1:]
    assert printed == ["one", "two", "three", "three", "four", " five, indented"]
    asked = [words for words, _ in programs.calls("kubectl logs")]
    assert ["--follow" in words for words in asked] == [True, True, True, False]
    assert [words[-1] for words in asked[1:]] == 3 * [f"--since-time={STAMP}"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (DONE, 0),
        (failed(1), 1),
        (failed(2), 2),
        (failed(137), 1),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 1),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, 1),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "bad"}, 2),
    ],
)
def test_exit_status_is_the_runs(
    status: dict[str, Any], expected: int, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.play(kubectl_get=[RUNNING, status])
    assert main(["logs", JOB]) == expected
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert ("The same command" in error) == (expected != 0)


def test_job_that_is_tried_again_is_followed_on(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    again = {"jobDeploymentStatus": "Retrying", "failed": 1}
    programs.play(kubectl_get=[RUNNING, again, {**RUNNING, "failed": 1}, {**DONE, "failed": 1}])
    assert main(["logs", JOB]) == 0
    assert f"{JOB}: Running, RUNNING (try 2)" in capsys.readouterr().err


def test_same_command_follows_its_running_job(programs: Programs) -> None:
    programs.play(kubectl_get=[RUNNING, DONE])
    assert main(["submit", "vgan_golf"]) == 0
    assert programs.calls("kubectl apply") == []


def test_same_command_submits_its_failed_job_again(programs: Programs) -> None:
    programs.play(kubectl_get=[failed(1), DONE])
    assert main(["submit", "vgan_golf"]) == 0
    order = [words[1] for words, _ in programs.calls("kubectl")]
    assert order[:4] == ["get", "delete", "apply", "apply"]
    ((words, _),) = programs.calls("kubectl delete")
    assert JOB in words


def test_same_command_leaves_its_finished_job_alone(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.play(kubectl_get=[DONE])
    assert main(["submit", "vgan_golf", "--namespace", "team"]) == 0
    assert [words[1] for words, _ in programs.calls("kubectl")] == ["get"]
    said = capsys.readouterr().out
    assert said.endswith(f"python -m cluster.kubernetes down --namespace team {JOB}\n")


def test_submit_no_wait_ends_when_it_is_sent(programs: Programs) -> None:
    programs.play(kubectl_get=[""])
    assert main(["submit", "vgan_golf", "--no-wait"]) == 0
    assert [words[1] for words, _ in programs.calls("kubectl")] == ["get", "apply", "apply"]


def test_cluster_that_is_away_for_a_moment_is_waited_for(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    away = (1, "", "E1121 10:00:00.1 1 memcache.go:265] x\nThe connection was refused\n")
    programs.play(kubectl_get=[RUNNING, away, away, DONE])
    assert main(["logs", JOB]) == 0
    assert capsys.readouterr().err.count("kubectl: The connection was refused; trying again") == 1


def test_cluster_that_stays_away_ends_the_following(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rayjobs, "SILENCE_S", 0.0)
    programs.play(kubectl_get=[RUNNING, RUNNING, (1, "", "The connection was refused")])
    assert main(["logs", JOB]) == 2
    assert capsys.readouterr().err.endswith("error: kubectl: The connection was refused\n")


def test_job_that_somebody_deletes_has_failed(programs: Programs) -> None:
    programs.play(kubectl_get=[RUNNING, RUNNING, ""])
    assert main(["logs", JOB]) == 1


def test_interrupt_leaves_the_job(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rayjobs.time, "sleep", interrupted)
    programs.play(kubectl_get=[RUNNING])
    assert main(["logs", JOB]) == 130
    assert "goes on" in capsys.readouterr().err
    assert programs.calls("kubectl delete") == []


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


def test_namespace_that_is_not_there_is_one_line(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    told = 'Error from server (NotFound): error when creating "STDIN": namespaces "x" not found\n'
    programs.play(kubectl_get=[""], kubectl_apply=[(1, "", told)])
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
        assert call[1] == "api-resources" or "--namespace=a" in call
        assert (chart in call) == (call[1] in ("template", "upgrade"))


def test_plan_is_what_is_called(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    programs.play(
        helm_status=["{}"], helm_upgrade=[""], helm_uninstall=[""], kubectl_get=[""],
        **{"kubectl_api-resources": ["rayjobs.ray.io"]},
    )  # fmt: skip
    for command in ("render", "install", "status", "down"):
        main([command, "--plan"])
        planned = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
        before = len(programs.calls())
        main([command])
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
    values = str(CHART / "examples" / "laptop-kind.yaml")
    for command in (["install", "--values", values], ["status"], ["down"], ["down", "a-job"]):
        assert main([*command, "--plan"]) == 0
    planned = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    job = rayjobs.RayJob("a-job", "a")
    planned += [[*job.read(), "--timestamps", "--follow", f"--since-time={STAMP}"], job.find()]
    for program, *words in planned:
        done = subprocess.run([found[program] or "", *words], capture_output=True, text=True)
        away = "refused" in done.stderr and "unknown" not in done.stderr
        assert away or words[0] == "template", (words, done.stderr)


def test_commands_of_the_documentation_are_taken(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    lines = re.findall(r"^python -m cluster\.kubernetes (.*)$", text, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        assert main([*shlex.split(line), "--plan"]) == 0, line
    capsys.readouterr()
