"""A paper's table beside what MLflow really holds."""

import json

import pytest
from mlflow import MlflowClient
from mlflow.entities import Param
from PIL import Image

from orchestrator.compare import filled, main
from orchestrator.config import flat, identity
from orchestrator.experiments import EXPERIMENTS
from orchestrator.mlflow_runs import EXPERIMENT_TAG, create_run, finished_runs
from orchestrator.overrides import override
from orchestrator.paper_tables import TABLES
from orchestrator.site import Site

TABLE = TABLES["sync_draw_table1"]


@pytest.fixture
def measured(site):
    """`measured(experiment, *assignments, status=, **metrics)`: a run in MLflow."""
    uri = Site.from_environment().mlflow_uri
    client = MlflowClient(uri)
    made = []

    def make(name, *assignments, status="FINISHED", **metrics):
        experiment = override(EXPERIMENTS[name], list(assignments))
        run_name = f"{name}-{len(made):08x}"
        run = create_run(client, uri, name=run_name, experiment="sync_draw").info.run_id
        deciding = flat(identity(experiment))  # as a run describes itself
        params = [Param(path, str(value)) for path, value in deciding.items() if path != "name"]
        client.log_batch(run, params=params)
        client.set_tag(run, EXPERIMENT_TAG, name)
        for metric, value in metrics.items():
            client.log_metric(run, f"val/{metric}", value, step=9)
        client.set_terminated(run, status)
        made.append(run_name)
        return run_name

    return make


def _filled():
    return filled(TABLE, finished_runs(Site.from_environment().mlflow_uri))


def test_cell_is_mean_and_deviation_over_seeds_of_finished_evaluated_runs(measured):
    names = [
        measured("sync_draw_one_digit", f"seed={seed}", reconstruction=400 + 10 * seed, elbo=-450)
        for seed in (0, 1)
    ]
    measured("sync_draw_one_digit", "seed=2", status="KILLED", reconstruction=9)
    measured("sync_draw_one_digit", "seed=3")  # finished, and not evaluated
    measured("sync_draw_global_two_digit_captions", reconstruction=7)
    found = _filled()
    ours = found["Sync-DRAW", "One digit"]
    assert ours.runs == tuple(names)
    assert ours.values["val/reconstruction"] == (405, pytest.approx(7.0711, rel=1e-4))
    assert ours.values["val/elbo"] == (-450, 0)
    assert "val/above_floor" not in ours.values
    assert found["Global", "Two digits, captions"].values["val/reconstruction"] == (7, None)
    assert len(found) == 2


def test_runs_nearest_to_the_registered_experiment_count_and_changes_are_named(measured):
    small = ["model.hidden=128", "model.strokes=6"]
    for seed in (0, 1):
        measured("sync_draw_one_digit", *small, f"seed={seed}", reconstruction=900)
    measured("sync_draw_one_digit", *small, "optim.lr=0.01", reconstruction=5)
    ours = _filled()["Sync-DRAW", "One digit"]
    assert (len(ours.runs), ours.changed) == (2, ("model.hidden=128", "model.strokes=6"))
    measured("sync_draw_one_digit", "budget.checkpoint_every=7", reconstruction=350)
    ours = _filled()["Sync-DRAW", "One digit"]
    assert (len(ours.runs), ours.changed) == (1, ())  # nothing that changes a result


def test_compare_prints_papers_figures_beside_ours_and_writes_all_forms(measured, site, capsys):
    out = site / "out"
    assert main(["--paper", "sync_draw_table1", "--out", str(out)]) == 0
    empty = capsys.readouterr().out
    assert "340.39" in empty
    assert "[a]" not in empty
    measured("sync_draw_one_digit", "model.hidden=128", reconstruction=444.4)
    assert main(["--paper", "sync_draw_table1", "--out", str(out), "--json"]) == 0
    told = capsys.readouterr().out
    assert "444.4 (1) [a]" in told
    assert "[a] not as registered: model.hidden=128" in told
    markdown = (out / "sync_draw_table1.md").read_text()
    assert "| Sync-DRAW | paper | 340.39 |" in markdown
    assert Image.open(out / "sync_draw_table1.png").size[0] > 600
    result = json.loads(told.splitlines()[-1])
    assert result == json.loads((out / "sync_draw_table1.json").read_text())
    assert len(result["cells"]) == 12


def test_compare_lists_and_suggests(site, capsys):
    assert main([]) == 0
    assert "sync_draw_table1" in capsys.readouterr().out
    assert main(["--paper", "sync_draw_table"]) == 2
    assert "did you mean 'sync_draw_table1'" in capsys.readouterr().err


def test_every_cells_experiment_is_registered():
    for table in TABLES.values():
        for (row, column), cell in table.cells.items():
            assert row in table.rows
            assert column in table.columns
            assert cell.experiment is None or cell.experiment in EXPERIMENTS
