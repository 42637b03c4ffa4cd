"""A real run in MLflow, made again from its record: the same, not the same, and refused."""

import json

import pytest
from mlflow import MlflowClient

from orchestrator import provenance, reproduce, run
from orchestrator.mlflow_runs import find_run, finished_runs
from orchestrator.overrides import override
from orchestrator.site import Site

SMALL = ["vgan_golf", "data.name=squares", "data.global_batch=3", "model.width=1"]
SMALL += ["budget.samples=1", "budget.steps=4", "budget.log_every=1", "budget.checkpoint_every=2"]
SMALL += ["resources.use_gpu=false", "resources.threads=1", "data.reader_threads=1"]


@pytest.fixture
def train(site, in_process, capsys):
    """Trains with more overrides and gives the run's name."""

    def train(*overrides):
        assert run.main([*SMALL, *overrides, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["run"]

    return train


def _last(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_run_made_again_is_bit_identical_and_no_sample_of_its_own(train, capsys):
    name = train()
    assert reproduce.main([name, "--json"]) == 0
    told = _last(capsys)
    assert (told["verdict"], told["last_step"]) == ("bit-identical", 4)
    assert {metric["points"] for metric in told["metrics"]} == {4}
    # Somebody may commit while this runs; the text of what runs was read once.
    assert [each for each in told["differences"] if each["what"] != "commit"] == []
    uri = Site.from_environment().mlflow_uri
    client = MlflowClient(uri)
    again = find_run(client, f"{name}-again")
    assert again.data.tags["orchestrator.reproduces"] == name
    assert again.data.tags["orchestrator.reproduction"] == "bit-identical"
    assert [each.name for each in finished_runs(uri)] == [name]
    assert len(client.search_model_versions("name='vgan_golf'")) == 1
    assert reproduce.main([again.info.run_id, "--plan"]) == 0
    assert f"it is itself a reproduction, of {name}" in capsys.readouterr().out


def test_reproduction_that_learns_at_another_rate_is_different_from_its_first_step_on(
    train, capsys, monkeypatch
):
    name = train()
    as_it_was = reproduce.as_it_was
    monkeypatch.setattr(
        reproduce,
        "as_it_was",
        lambda *given: override(as_it_was(*given), ["optim.lr=0.01"]),
    )
    assert reproduce.main([name, "--json"]) == 1
    told = _last(capsys)
    differs = {metric["name"]: metric["differs"] for metric in told["metrics"]}
    # D's first loss is of the first weights; G's is told after D's first step.
    assert (differs["train/d_loss"], differs["train/g_loss"]) == (2, 1)
    assert reproduce.main([name]) == 1, "finished, it is compared again"
    said = capsys.readouterr().out
    assert f"different: {name}-again and {name}, up to step 4" in said
    assert "outside of the tolerance (0.001 of a curve's size) from step 1" in said


def test_another_dataset_version_or_none_is_refused(train, capsys, site, make_dataset):
    name = train()
    make_dataset(site / "shards/squares", clips=44)
    assert reproduce.main([name]) == 2
    said = capsys.readouterr()
    assert "dataset squares" in said.out
    assert "cannot be reproduced here: see dataset squares" in said.err
    (site / "shards/squares/manifest.json").unlink()
    assert reproduce.main([name, "--plan", "--json"]) == 2
    told = _last(capsys)
    assert (told["differences"][0]["now"], told["differences"][0]["importance"]) == (
        "missing",
        "refuses",
    )
    assert not (site / f"runs/{name}-again").exists()


def test_other_code_device_workers_and_packages_warn_with_what_they_may_change(
    train, capsys, monkeypatch
):
    name = train()
    uri = Site.from_environment().mlflow_uri
    client = MlflowClient(uri)
    run_id = find_run(client, name).info.run_id
    client.set_tag(run_id, "orchestrator.device", "NVIDIA H200")
    client.set_tag(run_id, "orchestrator.code.0123456789ab", "abc+dirty")
    packages = provenance.packages() | {"torch": "9.9.9", "pillow": "0.1", "zipp": "0.1"}
    monkeypatch.setattr(provenance, "packages", lambda: packages)
    assert reproduce.main([name, "--plan", "--json", "resources.num_workers=2"]) == 0
    found = {each["what"]: each for each in _last(capsys)["differences"]}
    warns = {what for what, each in found.items() if each["importance"] == "warns"}
    assert warns == {"commit", "versions of the code", "device", "workers", "torch", "pillow"}
    assert "MLflow keeps no diff" in found["commit"]["effect"]
    assert "batch statistics" in found["workers"]["effect"]
    assert found["1 other packages"]["importance"] == "notes"


def test_wrong_call_exits_2_and_says_why(train, capsys):
    name = train()
    for arguments, message in [
        (["vgan_golf-0000"], f"did you mean {name!r}"),
        ([name, "optim.lr=0.01"], "optim.lr=0.01: it decides the result"),
        ([name, "data.reader_threads=0"], "data.reader_threads=0: must be"),
        ([name, "--tolerance", "-1"], "--tolerance=-1.0: must be 0 or more"),
    ]:
        assert reproduce.main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
