"""Comparisons of what a real MLflow holds."""

import json
import re
import shutil

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from orchestrator.compare import main
from orchestrator.comparing.curves import columns_of
from orchestrator.comparing.histories import Histories
from orchestrator.mlflow_runs import EXPERIMENT_TAG, create_run
from orchestrator.pictures import animated_grid
from orchestrator.site import Site

MIB = 2**20


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """MLflow's database, migrated once: that takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def told(site, tmp_path, empty):
    """`told(name, params, metrics, status=, samples=, **tags)`: a run in MLflow, its id.

    metrics: by name the values, at the steps 10, 20, ... samples: shades of clips by step.
    """
    shutil.copy(empty, site / "mlflow.db")
    uri = Site.from_environment().mlflow_uri
    mlflow = MlflowClient(uri)

    def make(name, params, metrics, *, status="FINISHED", samples=(), **tags):
        run = create_run(mlflow, uri, name=name, experiment="vgan").info.run_id
        named = {EXPERIMENT_TAG: "vgan_unfiltered"} | {
            f"orchestrator.{key}": str(value) for key, value in tags.items()
        }
        for key, value in named.items():
            mlflow.set_tag(run, key, value)
        points = [
            Metric(metric, value, 1000 + n, 10 * (n + 1))
            for metric, values in metrics.items()
            for n, value in enumerate(values)
        ]
        mlflow.log_batch(run, metrics=points, params=[Param(k, str(v)) for k, v in params.items()])
        for step, shade in dict(samples).items():
            path = tmp_path / f"step-{step:08d}.gif"
            path.write_bytes(animated_grid(np.full((4, 3, 16, 16, 3), shade, np.uint8)))
            mlflow.log_artifact(run, str(path), "samples")
        mlflow.set_terminated(run, status)
        return run

    return make


def _compared(site, *argv):
    """(JSON of the file, HTML, Markdown) of the command."""
    out = site / "out"
    assert main([*argv, "--out", str(out)]) == 0
    (html,) = out.glob("*.html")
    return (
        json.loads(html.with_suffix(".json").read_text()),
        html.read_text(),
        html.with_suffix(".md").read_text(),
    )


def _sweep(told, name="lambda_sweep-0a1b2c3d", mode="min"):
    """A sweep of two values by two seeds, and a trial that was stopped while it looked best."""
    told(
        name,
        {"metric": "train/g_loss", "mode": mode},
        {"cost/hours": [1.5]},
        sweep=name,
        kind="sweep",
    )
    n = 0
    for value, finals in {"0.1": (2.0, 4.0), "10.0": (5.0, 6.0)}.items():
        for seed, final in enumerate(finals):
            params = {"model.mask_lambda": value, "seed": seed, "optim.lr": 0.01}
            metrics = {
                "train/g_loss": [9.0, final],
                "goodput/fraction": [0.5, 0.8],
                "goodput/restart": [0.3, 0.15],
            }
            told(
                f"t-{n:08x}",
                params,
                metrics,
                sweep=name,
                trial=n,
                trial_state="finished",
                workers=2,
                samples={10: 99, 20: 40 + n},
            )
            n += 1
    params = {"model.mask_lambda": "1.0", "seed": 0, "optim.lr": 0.01}
    told(f"t-{n:08x}", params, {"train/g_loss": [1.0]}, sweep=name, trial=n, trial_state="stopped")
    return name


def test_sweep_is_compared_by_its_own_metric_with_seeds_as_spread(told, site):
    name = _sweep(told)
    told("other-00000009", {"model.mask_lambda": "7"}, {"train/g_loss": [0.1]})
    found, html, markdown = _compared(site, "lambda_sweep")
    assert (found["sweep"], found["metric"], found["mode"]) == (name, "train/g_loss", "min")
    assert found["cost"] == {"hours": 1.5}
    assert [run["name"] for run in found["runs"]] == [f"t-{n:08x}" for n in range(5)]
    assert found["differing"] == ["model.mask_lambda"]
    assert found["same"]["optim.lr"] == "0.01"
    spreads = {
        each["values"]["model.mask_lambda"]: each["metrics"]["train/g_loss"]
        for each in found["configurations"]
    }
    assert spreads["0.1"] == {"mean": 3.0, "sd": pytest.approx(2**0.5), "n": 2}
    assert spreads["1.0"] == {"mean": 1.0, "sd": None, "n": 1}
    assert found["best_run"] == "t-00000000"  # the stopped one told less, early
    assert found["runs"][0]["goodput"] == 0.8
    assert found["runs"][0]["lost_most"] == "restart 15.0%"
    assert found["runs"][0]["worker_hours"] == pytest.approx(2 * found["runs"][0]["hours"])
    assert "| 0.1 | `t-00000000` finished, `t-00000001` finished | 3 +- 1.4 (2) |" in markdown
    curve = found["curves"][0]["runs"]["t-00000001"]
    assert (curve["steps"], curve["values"]) == ([10, 20], [9.0, 4.0])
    assert len(html) < 5 * MIB
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html.split("<script>")[0])


def test_mode_of_the_sweep_decides_which_is_best(told, site):
    _sweep(told, mode="max")
    assert _compared(site, "lambda_sweep")[0]["best_run"] == "t-00000003"
    assert _compared(site, "lambda_sweep", "--mode", "min")[0]["best_run"] == "t-00000000"


def test_newest_sweep_of_a_registered_name_is_meant(told, site):
    _sweep(told)
    newest = "lambda_sweep-ffffffff"
    told(newest, {"metric": "train/g_loss", "mode": "min"}, {}, sweep=newest, kind="sweep")
    told("n-00000001", {"optim.lr": 1}, {"train/g_loss": [1.0]}, sweep=newest, trial=0)
    told("lambda_sweep_two-0a1b2c3d", {}, {}, sweep="lambda_sweep_two-0a1b2c3d", kind="sweep")
    assert [run["name"] for run in _compared(site, "lambda_sweep")[0]["runs"]] == ["n-00000001"]
    found = _compared(site / "x", "lambda_sweep-0a1b2c3d")[0]
    assert len(found["runs"]) == 5


def test_runs_are_named_by_name_id_or_path(told, site):
    first = told("vgan-00000001", {"optim.lr": 1, "seed": 0}, {"train/loss": [3.0, 2.0]})
    told("vgan-00000002", {"optim.lr": 2, "seed": 0}, {"train/loss": [3.0, 1.0]})
    (site / "runs" / "vgan-00000002" / "checkpoints").mkdir(parents=True)
    (site / "runs" / "vgan-00000002" / "checkpoints" / "x").touch()
    found, _, _ = _compared(site, first, str(site / "runs" / "vgan-00000002"), "vgan-00000001")
    assert [run["name"] for run in found["runs"]] == ["vgan-00000001", "vgan-00000002"]
    assert found["best_run"] == "vgan-00000002"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["vgan-0000001"], "no run and no sweep 'vgan-0000001'; did you mean 'vgan-00000001'"),
        (["lambda_swep"], "did you mean 'lambda_sweep-0a1b2c3d'"),
        (["0" * 32], "no run and no sweep"),
        (["it's; drop"], "no run and no sweep"),
        (["./nowhere"], "no run, it has no attempts"),
        (["vgan-00000001", "--metric", "train/los"], "did you mean 'train/loss'"),
        (["vgan-00000003"], "none of these runs has told a metric yet"),
        (["empty_sweep-0a1b2c3d"], "has no trial in MLflow yet"),
    ],
)
def test_wrong_name_is_told_with_the_nearest_and_exits_2(told, site, capsys, argv, says):
    told("vgan-00000001", {}, {"train/loss": [1.0]})
    told("vgan-00000003", {}, {})
    for name in ("lambda_sweep-0a1b2c3d", "empty_sweep-0a1b2c3d"):
        told(name, {}, {}, sweep=name, kind="sweep")
    assert main([*argv, "--out", str(site / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (site / "out").exists()


def test_no_mlflow_and_one_that_does_not_answer_are_told(site, monkeypatch, capsys):
    assert main(["vgan-00000001"]) == 2
    assert "it has no run at all" in capsys.readouterr().err
    assert not (site / "mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["vgan-00000001"]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_database_counts_columns_as_the_history_has_them(told, site):
    rng = np.random.default_rng(0)
    values = rng.normal(size=500)
    values[77] = 40.0
    told("vgan-00000001", {}, {"train/loss": list(values), "train/other": [1.0]})
    told("vgan-00000002", {}, {"train/loss": [1.0, float("nan"), float("inf"), 4.0]})
    histories = Histories(Site.from_environment().mlflow_uri)
    runs = histories.find(["vgan-00000001", "vgan-00000002"]).runs
    found = dict(histories.columns(runs, "train/loss", 333))
    truth = columns_of(10 * np.arange(1, 501), values, 333)
    for name in ("first", "last", "low", "high", "mean"):
        assert getattr(found[runs[0].id], name) == pytest.approx(getattr(truth, name))
    assert list(found[runs[1].id].mean) == [2.5]
    assert set(dict(histories.columns(runs, "train/other", 333))) == {runs[0].id}


def test_newest_samples_are_shown_and_missing_ones_are_not(told, site):
    _sweep(told)
    _, html, _ = _compared(site, "lambda_sweep")
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert {card["run"]: card["step"] for card in data["gallery"]} == {0: 20, 1: 20, 2: 20, 3: 20}
    assert all(card["moving"][0].startswith("data:image/webp;base64,") for card in data["gallery"])


def test_paper_table_of_named_runs_takes_no_other(told, site, capsys):
    told("vgan-00000001", {}, {"train/loss": [1.0]})
    assert main(["vgan-00000001", "--paper", "sync_draw_table1", "--out", str(site / "out")]) == 0
    assert "340.39" in capsys.readouterr().out
