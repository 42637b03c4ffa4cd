"""`submit`, `logs` and `down JOB` against a real API server; the jobs are played."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.rayjobs import READ_S, RayJob
from tests.helm.manifests import CHART
from tests.kubernetes.api import Object, until
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.node import Play
from tests.kubernetes.person import Background

LINE = ["vgan_golf", "optim.lr=1e-4", "budget.steps=9"]


class Jobs:
    """The commands in a namespace that has a release, and its RayJobs."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._here = f"--namespace={namespace}"

    def ours(self, *words: str) -> tuple[int, str, str]:
        """(status, output, errors) of one of our commands."""
        done = self.cluster.ours(*words, self._here)
        return done.returncode, done.stdout, done.stderr

    def begin(self, *words: str) -> Background:
        """The same, in the background."""
        return self.cluster.begin(*words, self._here)

    def until_told(self, follower: Background, text: str) -> None:
        """It has printed the text."""
        until(lambda: text in follower.output, text, otherwise=lambda: follower.errors)

    def all(self) -> list[Object]:
        """The RayJobs."""
        return self.cluster.api.list("rayjobs", namespace=self.namespace)

    def parts_of(self, name: str) -> list[str]:
        """What there is of a job: itself, and what KubeRay made of it."""
        of_it = f"ray.io/originated-from-cr-name={name}"
        found = [("rayjobs", each) for each in self.all()]
        for kind in ("rayclusters", "jobs", "pods"):
            listed = self.cluster.api.list(kind, namespace=self.namespace, labels=of_it)
            found += [(kind, each) for each in listed]
        return [f"{kind}/{each['metadata']['name']}" for kind, each in found]

    def only(self) -> Object:
        """The one that there is."""
        (job,) = until(self.all, "a RayJob")
        return job

    def until_running(self) -> Object:
        """The one, once its command runs."""

        def running() -> bool:
            found = self.all()
            return bool(found) and found[0].get("status", {}).get("jobStatus") == "RUNNING"

        until(running, "a job that runs", otherwise=lambda: str(self.all()))
        return self.only()


@pytest.fixture(scope="module")
def _release(_cluster: Cluster) -> Iterator[str]:
    """A release without jobs of its own, for all tests of this file."""
    with _cluster.namespace() as namespace:
        values = f"--values={CHART}/examples/laptop-kind.yaml"
        done = _cluster.ours("install", values, f"--namespace={namespace}")
        assert done.returncode == 0, done.stderr
        yield namespace


@pytest.fixture
def jobs(cluster: Cluster, _release: str) -> Iterator[Jobs]:
    jobs = Jobs(cluster, _release)
    yield jobs
    for each in jobs.all():
        cluster.api.delete("rayjobs", _release, each["metadata"]["name"])
    until(lambda: not jobs.all(), "no RayJobs")


def states(errors: str) -> list[str]:
    """How a job stood, in order, by what its follower says."""
    return [line.partition(": ")[2] for line in errors.splitlines()]


def test_submit_follows_a_job_to_its_end(jobs: Jobs) -> None:
    play = Play.held("loss 1.0", "loss 0.9")
    jobs.cluster.kuberay.play("vgan_golf", play)
    follower = jobs.begin("submit", *LINE)
    job = jobs.until_running()
    jobs.until_told(follower, "loss 0.9")
    play.may_end.set()
    assert follower.wait() == 0
    name = job["metadata"]["name"]
    told, *log = follower.output.splitlines()
    assert told.startswith(f"{name} is submitted. To follow it later: python -m cluster.kubernetes")
    assert log == ["loss 1.0", "loss 0.9"]
    assert states(follower.errors)[-1] == "Complete, SUCCEEDED"
    assert job["spec"]["entrypoint"].endswith("optim.lr=1e-4 budget.steps=9")
    assert jobs.ours("logs", name)[:2] == (0, "loss 1.0\nloss 0.9\n")


@pytest.mark.parametrize("status", [1, 2])
def test_submit_ends_as_the_command_does(jobs: Jobs, status: int) -> None:
    jobs.cluster.kuberay.play("vgan_golf", Play.ending(status, "no such thing"))
    done, output, errors = jobs.ours("submit", *LINE, "--retries", "0")
    assert done == status
    assert output.splitlines()[1:] == ["no such thing"]
    assert f"failed with exit code {status}" in errors.splitlines()[-1]
    assert jobs.only()["status"]["failed"] == 1


def test_failed_job_is_tried_again_by_the_operator_and_both_tries_are_shown(jobs: Jobs) -> None:
    first, second = Play.held("of the first try"), Play.held("of the second try")
    first.status = 1
    jobs.cluster.kuberay.play("vgan_golf", first, second)
    follower = jobs.begin("submit", *LINE, "--retries", "1")
    for play in (first, second):
        jobs.until_told(follower, play.lines[0])
        play.may_end.set()
    assert follower.wait() == 0
    assert follower.output.splitlines()[1:] == ["of the first try", "of the second try"]
    assert any("try 2" in state for state in states(follower.errors))
    assert (jobs.only()["status"]["failed"], jobs.only()["status"]["succeeded"]) == (1, 1)


def test_same_line_finds_its_own_job(jobs: Jobs) -> None:
    play = Play.held("loss 1.0")
    jobs.cluster.kuberay.play("vgan_golf", play)
    assert jobs.ours("submit", *LINE, "--no-wait")[0] == 0
    uid = jobs.until_running()["metadata"]["uid"]
    before = jobs.cluster.plane.writes()
    follower = jobs.begin("submit", LINE[0], *reversed(LINE[1:]))
    jobs.until_told(follower, "loss 1.0")
    play.may_end.set()
    assert follower.wait() == 0
    name = jobs.only()["metadata"]["name"]
    assert follower.output.splitlines() == [f"{name} is there already", "loss 1.0"]
    status, output, _ = jobs.ours("submit", *LINE)
    assert status == 0
    assert output.startswith(f"{name} is done. To run its command again: python -m")
    assert jobs.only()["metadata"]["uid"] == uid
    assert jobs.cluster.plane.writes() == before


def test_same_line_submits_a_failed_job_again(jobs: Jobs) -> None:
    jobs.cluster.kuberay.play("vgan_golf", Play.ending(1), Play.ending(0, "resumed"))
    assert jobs.ours("submit", *LINE, "--retries", "0")[0] == 1
    failed = jobs.only()["metadata"]["uid"]
    status, output, _ = jobs.ours("submit", *LINE, "--retries", "0")
    assert status == 0
    assert "it is submitted again, and resumes" in output
    assert output.splitlines()[-1] == "resumed"
    assert jobs.only()["metadata"]["uid"] != failed


def test_down_ends_one_job_with_all_that_it_has(jobs: Jobs) -> None:
    jobs.cluster.kuberay.play("vgan_golf", Play.held("loss 1.0"))
    follower = jobs.begin("submit", *LINE)
    name = jobs.until_running()["metadata"]["name"]
    jobs.until_told(follower, "loss 1.0")
    assert jobs.ours("down", name)[0] == 0
    until(lambda: jobs.parts_of(name) == [], "its end", otherwise=lambda: str(jobs.parts_of(name)))
    assert follower.wait() == 1
    assert follower.errors.splitlines()[-1] == f"{name}: was deleted"
    status, _, errors = jobs.ours("logs", name)
    assert (status, errors.count("\n")) == (2, 1)


def test_log_that_breaks_is_taken_up_at_the_last_line(jobs: Jobs) -> None:
    lines = tuple(f"loss {n}" for n in range(7))
    play = Play.held(*lines, cut_after=4)
    jobs.cluster.kuberay.play("vgan_golf", play)
    follower = jobs.begin("submit", *LINE)
    jobs.until_told(follower, lines[-1])
    play.may_end.set()
    assert follower.wait() == 0
    assert play.cut_after is None, "the connection broke"
    assert tuple(follower.output.splitlines()[1:]) == lines


def test_reading_ends_by_itself_when_nothing_comes(jobs: Jobs) -> None:
    """As from a submitter whose head is lost: it is looked at again whether the job is over."""
    play = Play.held("loss 1.0")
    jobs.cluster.kuberay.play("vgan_golf", play)
    assert jobs.ours("submit", *LINE, "--no-wait")[0] == 0
    job = RayJob(jobs.until_running()["metadata"]["name"], jobs.namespace)
    (pod,) = jobs.cluster.run(*job.submitters()).stdout.split()
    *words, limit = job.read(pod)
    assert limit == f"--request-timeout={READ_S}s"
    done = jobs.cluster.run(*words, "--request-timeout=2s", "--follow")
    assert done.stdout.endswith(" loss 1.0\n")
    assert "Client.Timeout" in done.stderr, "or `follow` would tell of it"
    play.may_end.set()
    assert jobs.ours("submit", *LINE)[0] == 0


def test_following_outlives_the_api_server(jobs: Jobs) -> None:
    play = Play.held("loss 1.0", "loss 0.9")
    jobs.cluster.kuberay.play("vgan_golf", play)
    follower = jobs.begin("submit", *LINE)
    jobs.until_told(follower, "loss 0.9")
    jobs.cluster.plane.kill_api()
    until(lambda: "trying again, the job goes on" in follower.errors, "a word about it")
    jobs.cluster.plane.start_api()
    play.may_end.set()
    assert follower.wait() == 0
    assert follower.output.splitlines()[1:] == ["loss 1.0", "loss 0.9"]


def test_interrupted_following_leaves_the_job_alone(jobs: Jobs) -> None:
    play = Play.held("loss 1.0")
    jobs.cluster.kuberay.play("vgan_golf", play)
    follower = jobs.begin("submit", *LINE)
    jobs.until_told(follower, "loss 1.0")
    follower.interrupt()
    assert follower.wait() == 130
    assert jobs.only()["status"]["jobDeploymentStatus"] == "Running"
    play.may_end.set()
    assert jobs.ours("submit", *LINE)[0] == 0


@pytest.mark.parametrize("failed_before", [False, True])
def test_line_that_is_given_many_times_at_once_is_one_job(jobs: Jobs, failed_before: bool) -> None:
    if failed_before:
        jobs.cluster.kuberay.play("vgan_golf", Play.ending(1))
        assert jobs.ours("submit", *LINE, "--retries", "0")[0] == 1
    jobs.cluster.kuberay.play("vgan_golf", Play.ending(0, "loss 1.0"))
    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(lambda _: jobs.ours("submit", *LINE), range(6)))
    assert [status for status, _, _ in ends] == [0] * 6, [errors for _, _, errors in ends]
    assert all(output.splitlines()[-1] == "loss 1.0" for _, output, _ in ends)
    assert sum("is submitted. To follow" in output for _, output, _ in ends) == 1
    jobs.only()


def test_job_over_the_namespaces_quota_is_refused_in_one_line(jobs: Jobs) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/rayjobs.ray.io": "0"}}}
    jobs.cluster.api.create("resourcequotas", jobs.namespace, quota)
    try:

        def counted() -> bool:
            found = jobs.cluster.api.get("resourcequotas", jobs.namespace, "none") or {}
            return "hard" in found.get("status", {})

        until(counted, "the quota")
        status, _, errors = jobs.ours("submit", *LINE)
        assert (status, errors.count("\n")) == (2, 1)
        assert "exceeded quota" in errors
        assert jobs.all() == []
    finally:
        jobs.cluster.api.delete("resourcequotas", jobs.namespace, "none")


def test_person_without_rights_is_told_in_one_line(jobs: Jobs) -> None:
    here = f"--namespace={jobs.namespace}"
    token = jobs.cluster.run("kubectl", "create", "token", "default", here).stdout.strip()
    words = ["python", "-m", "cluster.kubernetes", "submit", *LINE, here]
    done = jobs.cluster.run(*words, token=token)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "forbidden" in done.stderr
