"""What a run that nothing broke leaves behind; the faults are measured against it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.tracking import find_run

pytestmark = pytest.mark.timeout(1200)


def test_run_of_two_workers_consumes_the_same_keys_and_leaves_its_whole_record(
    run, uninterrupted, tmp_path
):
    two = run(workers="2", extra=["data.cache_gib=0.1"]).start()
    outcome = two.finish()
    assert [attempt["world_size"] for attempt in outcome.attempts] == [2]
    outcome.assert_same(uninterrupted, weights=False)
    assert list((two.folder / "cache").glob("*.tar")), "two workers filled the node's cache"
    client = MlflowClient(two.mlflow)
    record = find_run(client, Path(outcome.store.location).name)
    assert record.info.status == "FINISHED"
    assert record.data.params["model.width"] == "2"
    assert record.data.tags["config.resources.num_workers"] == "2"
    assert record.data.tags["orchestrator.paper"].startswith("VGAN 3.2")
    assert record.inputs.dataset_inputs[0].dataset.name == "squares"
    steps = [m.step for m in client.get_metric_history(record.info.run_id, "train/d_loss")]
    assert steps == list(range(1, 65))
    assert {"data/wait_s", "sys/clips_per_s", "goodput/fraction"} <= record.data.metrics.keys()
    shares = [v for k, v in record.data.metrics.items() if k.startswith("goodput/")]
    assert sum(shares) - record.data.metrics["goodput/fraction"] == pytest.approx(1)
    folder = Path(client.download_artifacts(record.info.run_id, "", str(tmp_path)))
    for name in ("samples", "streams"):
        made = sorted(p.name for p in (folder / name).iterdir())
        assert made == [f"step-{s:08d}.{e}" for s in (32, 64) for e in ("gif", "png")]
    assert {p.name for p in (folder / "real").iterdir()} == {"clips.gif", "clips.png"}
    assert json.loads((folder / "experiment.json").read_text())["model"]["width"] == 2
    assert client.get_model_version("vgan_golf", "1").run_id == record.info.run_id
    assert _load_and_predict(folder / "model", tmp_path) == [[2, 32, 64, 64, 3], "uint8", True]


def _load_and_predict(model, folder):
    """Loads the logged model in a process that does not import the project, and predicts twice."""
    code = (
        "import json, sys, mlflow.pyfunc, pandas, numpy; "
        "model = mlflow.pyfunc.load_model(sys.argv[1]); "
        "ask = pandas.DataFrame({'seed': numpy.array([3, 4])}); "
        "one, two = model.predict(ask), model.predict(ask); "
        "assert 'orchestrator' not in sys.modules; "
        "print(json.dumps([list(one.shape), str(one.dtype), bool((one == two).all())]))"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(model)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.usefixtures("uninterrupted")
def test_run_finished_says_so_and_exits_0(run):
    again = run(name="straight").start()
    assert again.wait() == 0
    assert "is finished; --fresh starts another" in again.text
    assert len(list(again.folder.glob("*/attempts/*"))) == 1
