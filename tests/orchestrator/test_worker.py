"""One worker alone, without Ray, on a real dataset: what it leaves in its store."""

import json
import time

import pytest
import torch

from orchestrator.accounts import AWAY, WORK
from orchestrator.checkpoint import Checkpoints
from orchestrator.experiments import EXPERIMENTS
from orchestrator.gauges import RANK_GAUGES, RUN_GAUGES
from orchestrator.loop import World
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.worker import DivergedError, Job, work
from shards.dataset import open_dataset
from shards.storage import LocalStore

CPU = torch.device("cpu")


@pytest.fixture
def job(tmp_path, make_dataset):
    make_dataset(tmp_path / "shards/squares")
    site = Site(
        shards_root=str(tmp_path / "shards"),
        shards_cache=str(tmp_path / "cache"),
        runs_root=str(tmp_path / "runs"),
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )

    def make(*assignments, command_at=None):
        small = ["data.name=squares", "data.global_batch=3", "model.width=1", "budget.samples=1"]
        small += ["budget.steps=6", "budget.log_every=1", "budget.checkpoint_every=2"]
        small += ["resources.threads=1", "data.reader_threads=1", *assignments]
        return Job(
            name="r",
            experiment=override(EXPERIMENTS["vgan_golf"], small),
            site=site,
            dataset_version=open_dataset(site.dataset("squares")).version,
            git="unknown",
            command_at=command_at or time.time(),
            flops_per_clip=1,
        )

    return make


def _store(job):
    return LocalStore(job.site.run("r"))


def test_work_keeps_the_best_checkpoint_and_its_accounts_sum_to_the_time(job):
    began = time.time() - 50
    first = job("budget.keep_checkpoints=2", "budget.best_metric=d_loss", command_at=began)
    work(first, World(), CPU)
    kept = Checkpoints(_store(first), keep=2, metric="d_loss")
    losses = {step: kept.load(step).facts["metrics"]["d_loss"] for step in kept.steps()}
    assert kept.best() == min(losses, key=losses.get)
    assert {4, 6} <= losses.keys()
    note = json.loads(_store(first).read("accounts.json"))
    spent = note["spent"]
    assert set(spent) == {*WORK, *AWAY}
    assert sum(spent.values()) == pytest.approx(note["at"] - began)
    assert 50 <= spent["restart"] < 80, "from the command to the first step"
    assert spent["compute"] > 0.1
    assert spent["idle"] == spent["lost"] == 0


def test_work_tells_every_figure_that_gauges_export(job):
    heard = []
    began = time.time()
    work(job(), World(), CPU, told=heard.append)
    assert [figures["step"] for figures in heard] == [1, 2, 3, 4, 5, 6]
    keys = {key for key, _ in (RUN_GAUGES | RANK_GAUGES).values()} - {"sys/mfu"}  # of GPUs alone
    for figures in heard:
        told = {f"{k.partition('/')[0]}/*" for k in figures} | figures.keys()
        assert keys <= told
        assert (figures["rejected"], figures["rollbacks"]) == (0, 0)
    saved = [figures["checkpoint_at"] for figures in heard]
    assert began < saved[0] < saved[-1] <= time.time()
    assert saved == sorted(saved)


def test_work_exploding_loss_rolls_back_and_gives_up_after_the_allowed_times(job, capsys):
    bad = job("resources.explosion=1.0001", "resources.max_rollbacks=1", "optim.lr=0.1")
    with pytest.raises(DivergedError, match=r"exploded after step .* 1 rollback"):
        work(bad, World(), CPU)
    assert capsys.readouterr().out.count("ROLLBACK 1: exploded after step") == 1
    assert [name for name, _ in _store(bad).list("rollbacks/")] == ["rollbacks/0001"]
    lines = (bad.site.outbox("r") / "rank0.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    told = [record["step"] for record in records if record["kind"] == "metrics"]
    assert told == sorted(set(told)), "what was done again is not told again"
    assert {"orchestrator.rollbacks": "1"} in [r["values"] for r in records if r["kind"] == "tags"]


def test_work_asked_to_stop_saves_and_the_rest_is_what_it_would_have_been(job, monkeypatch):
    monkeypatch.setattr("orchestrator.worker.ASK_EVERY_S", -1.0)
    straight = job("budget.checkpoint_every=6")
    work(straight, World(), CPU)
    expected = Checkpoints(_store(straight), keep=2).load(6).state
    for name, _ in list(_store(straight).list("")):
        _store(straight).delete(name)
    _store(straight).write("stop", b"")
    stopped = work(straight, World(), CPU)
    assert stopped == {"interrupted": "stop", "step": 1}
    _store(straight).delete("stop")
    assert work(straight, World(), CPU)["steps"] == 6
    got = Checkpoints(_store(straight), keep=2).load(6).state
    for name, weight in expected["learner"].items():
        assert torch.equal(got["learner"][name], weight), name


def test_work_started_again_elsewhere_writes_no_more_and_leaves(job, monkeypatch):
    monkeypatch.setattr("orchestrator.worker.ASK_EVERY_S", -1.0)
    first = job()
    asked = []

    def start_again():
        asked.append(1)
        if len(asked) == 3:
            _store(first).write("attempts/0002.json", b"{}")
        return False

    assert work(first, World(), CPU, preempted=start_again)["interrupted"] == "superseded"
    assert Checkpoints(_store(first), keep=2).steps() == [2]
    assert not list(_store(first).list("result.json"))
