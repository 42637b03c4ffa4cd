"""The command as a user types it: listing, plan, and every wrong call's message and status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.run import main
from shards.storage import LocalStore

SMALL = ["data.name=squares", "data.global_batch=4", "model.width=2", "resources.use_gpu=false"]


def test_listing_is_quick_json_and_imports_neither_ray_nor_mlflow():
    code = (
        "import sys; from orchestrator.run import main; main(['--json']);"
        "heavy = {'ray', 'mlflow', 'boto3'} & set(sys.modules); assert not heavy, heavy"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    rows = {row["name"]: row for row in json.loads(out.stdout.splitlines()[-1])}
    assert rows["vgan_unfiltered"]["steps"] == 95_000
    assert {
        f"vgan_{scene}_one_stream" for scene in ("golf", "beach", "train_station", "baby")
    } < set(rows)


def test_plan_says_what_would_run_and_writes_nothing(site, capsys):
    assert main(["vgan_golf", *SMALL, "model.width=64", "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["parameters"] == {"discriminator": 11_057_858, "generator": 16_245_383}
    assert plan["dataset"]["clips"] == 40
    assert plan["epochs"] == 65_000 * 4 / 40
    assert (plan["state"], plan["resumes_at_step"]) == ("new", 0)
    assert not (site / "runs").exists()
    assert not (site / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgan_gulf"], "did you mean 'vgan_golf'"),
        (["vgan_golf", "model.wdith=2"], "did you mean 'width'"),
        (["vgan_golf", "model.width=0"], "width=0: must be"),
        (["vgan_golf", "--scale", "laptob"], "did you mean 'laptop'"),
        (["--scale", "laptop"], "name an experiment"),
        (["vgan_golf"], "no dataset at"),
        (["vgan_golf", "data.name=squares"], "global_batch"),
    ],
)
def test_wrong_call_exits_2_and_says_what_is_valid(site, capsys, arguments, message):
    assert main([*arguments, "--plan"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_missing_dataset_message_names_the_command_that_builds_one(site, capsys):
    assert main(["vgan_golf", "--plan"]) == 2
    error = capsys.readouterr().err
    assert f"python -m shards.ingest VIDEOS {site}/shards/flickr_golf" in error
    assert "python -m shards.demo" in error


def test_dataset_without_clips_or_with_a_damaged_shard_is_refused(site, capsys):
    shard = site / "shards/squares/shards/000001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    assert main(["vgan_golf", *SMALL, "--plan"]) == 2
    assert "000001" in capsys.readouterr().err
    shard.unlink()
    assert main(["vgan_golf", *SMALL, "--plan"]) == 2
    assert "000001" in capsys.readouterr().err
    store = LocalStore(str(site / "shards/squares"))
    empty = json.loads(store.read("manifest.json")) | {"samples": 0, "shards": []}
    store.write("manifest.json", json.dumps(empty).encode())
    assert main(["vgan_golf", *SMALL, "--plan"]) == 2
    assert "empty" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a place not even root may write to")
def test_storage_that_cannot_be_written_is_refused_before_training(site, capsys, monkeypatch):
    monkeypatch.setenv("RUNS_ROOT", "/proc/no-such-place")  # not even root may write here
    assert main(["vgan_golf", *SMALL]) == 2
    error = capsys.readouterr().err
    assert "cannot write to /proc/no-such-place" in error
    assert "RUNS_ROOT" in error
