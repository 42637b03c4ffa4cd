"""A sweep from its start to its best trial, and what is left of one when it is killed.

The sweep has four trials, of which one cannot work. Killed at a moment that a seed decides and
started again by the same command, it has every trial once: in its journal, in MLflow, and in what
its trials' own stores say of their starts.
"""

import json
import os
import random
import sys

import mlflow
import pytest
import torch

from orchestrator.checkpoint import Checkpoints
from orchestrator.history import History
from orchestrator.site import Site
from orchestrator.sweeping.driver import adopt
from shards.storage import open_store
from tests.faults.command import Run

SEEDS = range(int(os.environ.get("FAULT_SEEDS", "1")))
STEPS = 16
pytestmark = pytest.mark.timeout(1200)
SPACE = ["space.model.mask_lambda=0,0.1,1", "space.optim.lr=none", "sweep.reports=8"]
RATES = ["space.model.mask_lambda=none", "space.optim.lr=1e-4,2e-4,3e-4,1e38"]  # the last diverges


class SweepRun(Run):
    """A sweep as its user starts it."""

    @property
    def command(self):
        module = [sys.executable, "-m", "orchestrator.sweep", "vgan_lambda"]
        given = [*self.assignments, f"resources.num_workers={self.workers_asked}"]
        return [*module, *given, f"budget.steps={STEPS}", "--json"]

    @property
    def events(self):
        lines = [line for line in self.text.splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]

    @property
    def trials(self):
        """The journal's trials, as they are written."""
        found = sorted(self.folder.glob("vgan_lambda-*/trials/*.json"))
        return [json.loads(path.read_text()) for path in found]

    def stores(self):
        return [open_store(f"{self.folder}/{trial['run']}") for trial in self.trials]

    def told(self):
        """(the sweep's runs, its trials' runs) in MLflow."""
        client = mlflow.MlflowClient(tracking_uri=self.mlflow)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(ids)
        parents = [run for run in runs if run.data.tags.get("orchestrator.kind") == "sweep"]
        return parents, [run for run in runs if run not in parents]


@pytest.fixture
def sweep(site, request):
    made = []

    def make(*extra):
        name = request.node.name.replace("[", "-").replace("]", "")[5:]
        made.append(SweepRun(site, name, extra=extra).forget())
        return made[-1]

    yield make
    for each in made:
        each.end()


def _assert_every_trial_once(run, count):
    assert [trial["number"] for trial in run.trials] == list(range(count))
    assert len({trial["run"] for trial in run.trials}) == count
    (parent,), children = run.told()
    assert parent.info.status == "FINISHED"
    assert sorted(child.info.run_name for child in children) == sorted(
        trial["run"] for trial in run.trials
    )
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["orchestrator.sweep"] == parent.info.run_name
        (trial,) = [trial for trial in run.trials if trial["run"] == child.info.run_name]
        assert child.data.tags["orchestrator.trial"] == str(trial["number"])
        assert child.data.tags["orchestrator.trial_state"] == trial["state"]


@pytest.mark.nightly  # two minutes; what is decided then has tests in test_conduct
def test_sweep_with_a_trial_that_fails_goes_on_and_does_nothing_when_started_again(sweep):
    run = sweep("sweep.scheduler=none", *RATES, "resources.max_rollbacks=0").start()
    assert run.wait() == 0, run.text[-6000:]
    _assert_every_trial_once(run, 4)
    states = [trial["state"] for trial in run.trials]
    assert states == ["finished", "finished", "finished", "failed"]
    assert "not finite" in run.trials[3]["why"]
    parents, _ = run.told()
    best = min(run.trials[:3], key=lambda trial: -trial["curve"][-1][1]["d_fake"])
    assert run.events[-1]["best"]["run"] == best["run"]
    assert parents[0].data.tags["sweep.best_run"] == best["run"]
    client = mlflow.MlflowClient(tracking_uri=run.mlflow)
    crowned = client.get_model_version_by_alias("vgan_unfiltered", "best")
    assert client.get_run(crowned.run_id).info.run_name == best["run"]
    artifacts = {a.path for a in client.list_artifacts(parents[0].info.run_id, "plots")}
    assert {"plots/importance.png", "plots/rungs.png"} <= artifacts
    gallery = {a.path for a in client.list_artifacts(parents[0].info.run_id, "gallery")}
    assert gallery == {"gallery/samples.png", "gallery/samples.gif"}
    before = run.trials
    assert run.start().wait() == 0, run.text[-6000:]
    assert run.trials == before
    assert all(len(list(store.list("attempts/"))) == 1 for store in run.stores())


@pytest.mark.nightly  # three minutes, the longest of all; what is resumed has tests in test_conduct
@pytest.mark.parametrize("seed", SEEDS)
def test_sweep_killed_and_the_same_command_again_has_every_trial_once(sweep, seed):
    run = sweep("sweep.eta=2", "sweep.concurrent=2", *SPACE).start()
    draw = random.Random(f"sweep/{seed}")
    reports = draw.randint(1, 14)

    def told():
        return sum(len(trial["curve"]) for trial in run.trials) >= reports

    run.wait_for(told, f"{reports} reports")
    run.kill_driver()
    over = {t["number"]: t for t in run.trials if t["state"] != "running"}
    assert run.start().wait() == 0, run.text[-6000:]
    _assert_every_trial_once(run, 3)
    assert {trial["state"] for trial in run.trials} <= {"finished", "stopped"}
    assert all(trial == run.trials[number] for number, trial in over.items())
    for trial, store in zip(run.trials, run.stores(), strict=True):
        starts = len(list(store.list("attempts/")))
        assert 1 <= starts <= (1 if trial["number"] in over else trial["starts"])
        told_steps = [step for step, _ in trial["curve"]]
        assert told_steps == [2 * n for n in range(1, len(told_steps) + 1)]


@pytest.mark.nightly  # two starts of a sweep: a minute and more, and the decisions have tests
def test_sweep_told_to_stop_leaves_its_trials_to_the_same_command(sweep):
    run = sweep("sweep.concurrent=2", *SPACE).start()
    run.wait_for(lambda: sum(len(trial["curve"]) for trial in run.trials) >= 2, "reports")
    run.process.terminate()
    assert run.wait() == 1
    assert "failed" not in {trial["state"] for trial in run.trials}
    left = [trial["number"] for trial in run.trials if trial["state"] == "running"]
    assert left, "it was told to stop before all were over"
    (parent,), _ = run.told()
    assert parent.info.status == "KILLED"
    assert run.start().wait() == 0, run.text[-6000:]
    _assert_every_trial_once(run, 3)
    assert {trial["state"] for trial in run.trials} <= {"finished", "stopped"}


def test_sweep_that_needs_more_than_the_cluster_has_says_so_with_the_numbers(sweep):
    run = sweep("resources.cpus_per_worker=4096").start()
    assert run.wait() == 2
    assert "4096 CPU" in run.text
    assert "Traceback" not in run.text


@pytest.mark.nightly  # four trials that stop and go on again: minutes
def test_sweep_by_pbt_gives_a_bad_trial_the_weights_of_a_good_one(sweep):
    run = sweep(
        "sweep.scheduler=pbt",
        "sweep.searcher=random",
        "sweep.trials=4",
        "sweep.grace=1",
        "sweep.reports=4",
        "space.model.mask_lambda=none",
        "space.optim.lr=log:1e-5..1e-2",
        "sweep.objectives=d_loss:min",
        "sweep.concurrent=4",
    ).start()
    assert run.wait() == 0, run.text[-6000:]
    assert all(trial["state"] == "finished" for trial in run.trials)
    assert any(trial["lineage"] for trial in run.trials)
    for trial in run.trials:
        for step, donor, values in trial["lineage"]:
            assert donor != trial["number"]
            assert 0 < step < STEPS
            assert 1e-5 <= float(values["optim.lr"]) <= 1e-2


def test_adopt_takes_weights_and_moments_of_another_run_and_forgets_what_came_later(tmp_path):
    site = Site(
        shards_root="", shards_cache="", runs_root=str(tmp_path), mlflow_uri="sqlite:///unused"
    )
    for name, value in (("donor", 1.0), ("clone", 2.0)):
        for step in (4, 8, 12):
            state = {"learner": {"w": torch.full((3,), value + step)}, "optimizers": {}}
            Checkpoints(open_store(site.run(name)), keep=9).save(step, state, {"of": name})
            History(open_store(site.run(name))).report(step, {"loss": value})
    adopt(site, "donor", 8, "clone")
    newest = Checkpoints(open_store(site.run("clone")), keep=9).newest()
    assert newest is not None
    assert (newest.step, newest.facts["of"]) == (8, "donor")
    assert newest.state["learner"]["w"].tolist() == [9.0, 9.0, 9.0]
    assert [step for step, _ in History(open_store(site.run("clone"))).reported()] == [4, 8]
