"""A job's name, its words, and its log until it is over."""

import json
import re
import string
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cluster import rayjobs
from cluster.kubernetes import main
from cluster.rayjobs import Work
from cluster.releases import CHART
from tests.cluster.playback import DONE, INITIALIZING, JOB, MADE, RUNNING, STAMP, Programs, failed


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
    ((_, job),) = programs.calls("kubectl create")
    ((_, budget),) = programs.calls("kubectl apply")
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
    assert {words[2] for words in asked} == {"pod/newest"}  # the first one's place it has taken
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
    assert programs.calls("kubectl create") == []


def test_same_command_given_at_the_same_time_follows_the_job_that_was_first(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.play(kubectl_create=[(1, "", "Error: AlreadyExists")], kubectl_get=["", RUNNING, DONE])
    assert main(["submit", "vgan_golf"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{JOB} is there already"
    assert programs.calls("kubectl apply") == []


def test_budgets_are_not_sent_to_a_cluster_that_is_too_old_for_them(programs: Programs) -> None:
    programs.play(kubectl_get=["", DONE], **{"kubectl_api-versions": ["policy/v1beta1\n"]})
    assert main(["submit", "vgan_golf"]) == 0
    assert len(programs.calls("kubectl create")) == 1
    assert programs.calls("kubectl apply") == []


def test_same_command_submits_its_failed_job_again(programs: Programs) -> None:
    programs.play(kubectl_get=[failed(1), failed(1), "", DONE])
    assert main(["submit", "vgan_golf"]) == 0
    order = [words[1] for words, _ in programs.calls("kubectl")]
    assert order[:7] == ["get", "delete", "get", "get", "create", "api-versions", "apply"]
    ((words, given),) = programs.calls("kubectl delete")
    assert words[2] == f"--raw=/apis/ray.io/v1/namespaces/training/rayjobs/{JOB}"
    assert json.loads(given)["preconditions"] == {"uid": "u-1"}


def test_job_that_another_call_has_submitted_again_is_not_taken_from_it(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = json.dumps({**MADE, "metadata": {"name": JOB, "uid": "u-2"}, "status": RUNNING})
    programs.play(
        kubectl_get=[failed(1), newer, newer, newer, DONE],
        kubectl_delete=[(1, "", "Error from server (Conflict): the UID in the precondition")],
        kubectl_create=[(1, "", "Error from server (AlreadyExists)")],
    )
    assert main(["submit", "vgan_golf"]) == 0
    assert f"{JOB} is there already" in capsys.readouterr().out


def test_failed_job_that_may_not_be_deleted_is_told(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.play(kubectl_get=[failed(1)], kubectl_delete=[(1, "", "Error: forbidden")])
    assert main(["submit", "vgan_golf"]) == 2
    assert capsys.readouterr().err == "error: kubectl: forbidden\n"
    assert programs.calls("kubectl create") == []


def test_job_without_its_budgets_runs_and_is_followed(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.play(kubectl_get=["", DONE], kubectl_apply=[(1, "", "Error: budgets are forbidden")])
    assert main(["submit", "vgan_golf"]) == 0
    out, err = capsys.readouterr()
    assert f"{JOB} is submitted" in out
    assert "warning: drains of nodes may evict it: kubectl: budgets are forbidden" in err


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
    assert [words[1] for words, _ in programs.calls("kubectl")] == [
        "get",
        "create",
        "api-versions",
        "apply",
    ]


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


def test_following_is_not_ended_by_a_log_that_took_longer_than_the_silence_may(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(0, 3600 * 1000, 3600))
    now = [0.0]
    monkeypatch.setattr(rayjobs.time, "monotonic", lambda: now[0])

    def read(_argv: list[str]) -> Iterator[str]:
        now[0] += next(hours)
        yield f"{STAMP} loss 1.0\n"

    monkeypatch.setattr(rayjobs, "lines", read)
    away = (1, "", "The connection was refused")
    programs.play(kubectl_get=[RUNNING, RUNNING, away, RUNNING, away, DONE])
    assert main(["logs", JOB]) == 0


def test_end_of_the_log_is_asked_for_again_and_not_for_ever(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = (1, "", "Error from server: dial tcp: connection refused")
    last = f"{STAMP} loss 0.9\n"
    programs.play(kubectl_get=[DONE], kubectl_logs=[broken, broken, last])
    assert main(["logs", JOB]) == 0
    out, err = capsys.readouterr()
    assert out == "loss 0.9\n"
    assert err.count("its log: kubectl: Error from server: dial tcp") == 1
    programs.play(kubectl_logs=[broken])
    before = len(programs.calls("kubectl logs"))
    assert main(["logs", JOB]) == 0
    assert len(programs.calls("kubectl logs")) - before == rayjobs.TAIL_TRIES


def test_job_whose_pods_are_gone_has_an_end_without_a_log(programs: Programs) -> None:
    programs.play(kubectl_get=[failed(1)], kubectl_get_pods=[""])
    assert main(["logs", JOB]) == 1
    assert programs.calls("kubectl logs") == []


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
