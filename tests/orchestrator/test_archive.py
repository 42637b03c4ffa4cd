"""What a user may type for RUN, against real folders and a real MLflow store."""

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.archive import Run, locate
from orchestrator.mlflow_runs import create_run
from orchestrator.site import Site
from shards.storage import LocalStore

NAMES = ("vgan_golf-0a1b2c3d", "vgan_golf-99887766", "vgan_beach-0a1b2c3d")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A site with three runs on disk, told to MLflow with one that is elsewhere."""
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in NAMES:
        LocalStore(str(tmp_path / "runs" / name)).write("attempts/0001.json", b"{}")
    (tmp_path / "runs" / "notes").mkdir()
    return Site.from_environment()


@pytest.fixture
def ids(here):
    """{run name: MLflow run id}"""
    client = MlflowClient(here.mlflow_uri)
    return {
        name: create_run(client, here.mlflow_uri, name=name, experiment="vgan").info.run_id
        for name in (*NAMES, "vgan_golf-elsewhere")
    }


@pytest.mark.parametrize("form", ["{name}", "{root}/{name}", "{root}/{name}/", "runs/{name}"])
def test_run_is_found_by_name_and_by_path(here, monkeypatch, form):
    monkeypatch.chdir(Path(here.runs_root).parent)
    text = form.format(root=here.runs_root, name=NAMES[1])
    assert locate(text, here) == Run(name=NAMES[1], location=f"{here.runs_root}/{NAMES[1]}")
    assert not Path(here.mlflow_uri.removeprefix("sqlite:///")).exists()


def test_run_is_found_by_its_mlflow_id(here, ids):
    assert locate(ids[NAMES[2]], here) == Run(
        name=NAMES[2], location=f"{here.runs_root}/{NAMES[2]}"
    )


def test_run_copied_elsewhere_is_found_by_path_alone(here, tmp_path):
    LocalStore(str(tmp_path / "copy")).write("checkpoints/00000001/manifest.json", b"{}")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    assert locate(f"{tmp_path}/link", here) == Run(name="copy", location=f"{tmp_path}/copy")


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        ("vgan_golf-0a1b2c3e", "'vgan_golf-0a1b2c3d'"),
        ("vgan_golf", "'vgan_golf-0a1b2c3d' or 'vgan_golf-99887766'?"),
        ("{root}/vgan_beech-0a1b2c3d", "{root}/vgan_beach-0a1b2c3d"),
    ],
)
def test_unknown_run_names_the_nearest(here, text, suggested):
    fill = {"root": here.runs_root}
    with pytest.raises(ValueError, match=re.escape(suggested.format(**fill))):
        locate(text.format(**fill), here)


def test_unknown_run_where_none_is_says_so(here, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_ROOT", str(tmp_path / "empty"))
    for text in ("vgan_golf", "", "notes"):
        with pytest.raises(ValueError, match="no run has been started there"):
            locate(text, Site.from_environment())


def test_mistyped_mlflow_id_names_the_nearest_id_and_its_run(here, ids):
    good = ids[NAMES[0]]
    bad = good[:-1] + ("0" if good[-1] != "0" else "1")
    for text in (bad, good[:20]):
        with pytest.raises(ValueError, match=rf"did you mean {good} \({NAMES[0]}\)"):
            locate(text, here)


def test_mlflow_id_of_a_run_that_is_elsewhere_says_where_it_wrote(here, ids):
    run_id = ids["vgan_golf-elsewhere"]
    with pytest.raises(ValueError, match=r"there is no run at .*vgan_golf-elsewhere"):
        locate(run_id, here)
    place = "s3://bucket/runs/vgan_golf-elsewhere/checkpoints"
    MlflowClient(here.mlflow_uri).set_tag(run_id, "orchestrator.checkpoints", place)
    with pytest.raises(ValueError, match=f"went to {place}: set RUNS_ROOT"):
        locate(run_id, here)


def test_mlflow_id_is_unknown_where_mlflow_has_no_database_and_none_is_made(here, tmp_path):
    with pytest.raises(ValueError, match="has no run with the id"):
        locate("0" * 32, here)
    assert not (tmp_path / "mlflow.db").exists()


def test_mlflow_that_does_not_answer_is_named(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9 does not answer"):
        locate("0" * 32, Site.from_environment())
