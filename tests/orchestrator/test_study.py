"""The study command from runs to blind clips, and what it says to a wrong call."""

import csv
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from contextlib import closing
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from orchestrator.checkpoint import Checkpoints
from orchestrator.config import plain
from orchestrator.experiments import EXPERIMENTS
from orchestrator.mlflow_runs import create_run
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.study import main
from orchestrator.studying.answers import Answers, clip_file
from orchestrator.studying.plan import CHECK, NOISE, REFERENCE
from shards.storage import open_store

SMALL = ["model.width=1", "data.name=squares"]


def _trained(site, name, *, seed, experiment="vgan_golf", step=7):
    """A run on disk with weights of its own."""
    value = override(EXPERIMENTS[experiment], SMALL)
    torch.manual_seed(seed)
    learner = value.model.build()
    for weight in learner.parameters():
        weight.data.mul_(20)  # at first it makes one even grey
    Checkpoints(open_store(str(site / "runs" / name)), keep=2).save(
        step,
        {"learner": learner.state_dict()},
        {"run": name, "experiment": plain(value), "reader": {"dataset_version": "0"}},
    )


@pytest.fixture
def runs(site):
    """Two runs, and the site's folder of studies."""
    _trained(site, "golf-1", seed=1)
    _trained(site, "one-2", seed=2, experiment="vgan_golf_one_stream")
    return site / "runs" / "studies"


@pytest.fixture
def made(runs, monkeypatch):
    """`made(arguments)`: the open study that the call makes, as it would be served."""
    opened = []

    def serve_nothing(answers, listening):
        opened.append(Answers(answers.folder))

    monkeypatch.setattr("orchestrator.study.serve", serve_nothing)

    def make(*arguments):
        assert main([*arguments, "--port", "0"]) == 0
        return opened[-1]

    yield make
    for answers in opened:
        answers.close()


def _strip(answers, name):
    """uint8 (T, H, W, 3)"""
    with Image.open(clip_file(answers.folder, name)) as image:
        pixels = np.asarray(image)
    return np.stack(np.split(pixels, pixels.shape[1] // pixels.shape[0], axis=1))


def test_study_has_clips_of_every_source_and_of_the_checks(made):
    answers = made("golf-1", "one-2", "--real", "squares", "--clips", "6", "--stills")
    counts = {source: len(names) for source, names in answers.clips.items()}
    assert counts == {
        "golf-1": 6,
        "one-2": 6,
        "real": 6,
        "still of golf-1": 6,
        "still of one-2": 6,
        CHECK: 5,
        NOISE: 5,
    }
    assert answers.study.length == 45
    assert len({name for names in answers.clips.values() for name in names}) == 40
    for name in answers.clips["still of one-2"]:
        frames = _strip(answers, name)
        assert (frames == frames[0]).all()
    assert not (_strip(answers, answers.clips["one-2"][0]) == _strip(answers, name)).all()

    def colours(source):
        return sorted(
            np.sort(_strip(answers, name).reshape(-1, 3), axis=0).tobytes()
            for name in answers.clips[source]
        )

    assert colours(NOISE) == colours(CHECK)
    noise = _strip(answers, answers.clips[NOISE][0])
    assert (noise[0] != noise[1]).any(axis=-1).mean() > 0.1


def test_clips_are_those_of_the_weights_and_real_ones_of_the_dataset(made, site):
    answers = made("golf-1", "--real", "squares", "--clips", "4")
    greys = {int(_strip(answers, name)[0, 0, -1, 0]) for name in answers.clips["real"]}
    assert greys <= {40 + 4 * n for n in range(20)}  # what the dataset's clips stand on
    first = {_strip(answers, name).tobytes() for name in answers.clips["golf-1"]}
    _trained(site, "golf-1", seed=9, step=8)
    retrained = made("golf-1", "--real", "squares", "--clips", "4")
    assert retrained.study.id != answers.study.id
    assert not first & {_strip(retrained, n).tobytes() for n in retrained.clips["golf-1"]}


def test_files_tell_nothing_by_name_order_or_content(made):
    answers = made("golf-1", "one-2", "--clips", "8")
    source_of = {name: source for source, names in answers.clips.items() for name in names}
    files = sorted((answers.folder / "clips").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert {file.stem for file in files} == set(source_of)
    written = [source_of[file.stem] for file in files]
    turns = sum(one != two for one, two in pairwise(written))
    assert turns > 5  # source by source there would be 3
    for file in files:
        assert re.fullmatch(r"[0-9a-f]{32}\.png", file.name)
        data, at, kinds = file.read_bytes(), 8, []
        while at < len(data):
            (length,) = struct.unpack(">I", data[at : at + 4])
            kinds.append(data[at + 4 : at + 8])
            at += 12 + length
        assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}
    assert answers.folder.stat().st_mode & 0o077 == 0


def test_same_call_goes_on_with_the_same_study(made):
    first = made("golf-1", "one-2", "--clips", "4")
    key = first.join(most=9)
    again = made("golf-1", "one-2", "--clips", "4")
    assert (again.token, again.rater(key)) == (first.token, 1)
    assert made("--study", first.study.id).token == first.token
    other = made("golf-1", "one-2", "--clips", "4", "--seed", "1")
    assert other.token != first.token
    assert not {*chain(*other.clips.values())} & {*chain(*first.clips.values())}


def test_rating_shows_references_that_are_not_rated(made):
    answers = made("golf-1", "--real", "squares", "--mode", "rating", "--clips", "5")
    assert (answers.study.trials, answers.study.checks) == (20, 2)
    assert len(answers.clips[REFERENCE]) == 4
    shown = {_strip(answers, name).tobytes() for name in answers.clips[REFERENCE]}
    assert not shown & {_strip(answers, name).tobytes() for name in answers.clips["real"]}


def test_three_models_and_real_meet_in_the_rows_of_table_1(made, site):
    _trained(site, "ae-3", seed=3, experiment="vgan_autoencoder_golf")
    answers = made("golf-1", "one-2", "ae-3", "--real", "squares", "--clips", "2", "--checks", "1")
    assert len(answers.study.comparisons) == 6
    assert len(answers.clips["ae-3"]) == 2


def test_futures_begin_where_real_clips_do(made, site):
    _trained(site, "future-4", seed=4, experiment="vgan_future_golf")
    answers = made("future-4", "golf-1", "--clips", "3", "--checks", "1")
    assert len({_strip(answers, name).tobytes() for name in answers.clips["future-4"]}) == 3
    (site / "shards" / "squares").rename(site / "shards" / "elsewhere")
    assert main(["future-4", "golf-1", "--checks", "0", "--port", "0"]) == 2


def test_small_dataset_gives_what_it_has_or_says_so(made, site, make_dataset, capsys):
    make_dataset(site / "shards" / "few", clips=8, shards=2)
    assert (
        len(made("golf-1", "--real", "few", "--clips", "8").clips["real"]) == 3
    )  # the checks have 5
    assert main(["golf-1", "--real", "few", "--checks", "8", "--port", "0"]) == 2
    assert "has 8 clips, and this study needs at least 9" in capsys.readouterr().err


def test_report_and_export_of_answers(made, tmp_path, capsys):
    answers = made("golf-1", "--real", "squares", "--pairs", "2", "--checks", "1", "--clips", "4")
    rater = answers.rater(answers.join(most=9))
    for position in range(3):
        shown = answers.standing(rater).shown
        sources = {n: source for source, names in answers.clips.items() for n in names}
        value = next(i for i, n in enumerate(shown) if sources[n] in ("golf-1", CHECK))
        answers.answer(rater, position, value)
    uri = Site.from_environment().mlflow_uri
    client = MlflowClient(uri)
    run_id = create_run(client, uri, name="golf-1", experiment="vgan").info.run_id
    capsys.readouterr()
    table = tmp_path / "answers.csv"
    name = answers.study.id
    assert main(["--study", name, "--report", "--export", str(table)]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("golf-1"))
    assert line.split()[:3] == ["golf-1", "real", "100.0"]
    (point,) = client.get_metric_history(run_id, "val/preferred_over_real")
    assert (point.step, point.value) == (7, 1)
    kept = client.download_artifacts(run_id, f"study/{name}", str(tmp_path))
    assert Path(kept, "answers.csv").read_bytes() == table.read_bytes()
    assert "golf-1" in Path(kept, "report.txt").read_text()
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert sorted(row["chosen"] for row in rows) == [CHECK, "golf-1", "golf-1"]
    assert main(["--study", name, "--study", name, "--export", "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert main([]) == 0
    assert f"study {name}: pairs of golf-1, real" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["golf-3"], "did you mean 'golf-1'"),
        (["golf-1"], "one run alone has nothing to meet"),
        (["golf-1", "golf-1"], "golf-1: given twice"),
        (["golf-1", "one-2", "--real", "squared"], "no dataset at"),
        (["golf-1", "one-2", "--real", "wide"], "would not be blind (TxHxW): golf-1 32x64x64"),
        (["golf-1", "one-2", "--pairs", "0"], "--pairs=0: must be from 1"),
        (["golf-1", "one-2", "--report"], "nobody was asked yet"),
        (["golf-1", "one-2", "--export", "x.csv"], "nobody was asked yet"),
        (["golf-1", "--study", "0123"], "give either RUNs or --study"),
        (["--study", "0123"], "--study 0123: no such study at"),
        (["golf-1", "one-2", "--port", "70000"], "--port=70000: must be from 0 to 65535"),
        (["golf-1", "one-2", "--host", "no.such.host.invalid"], "cannot listen on no.such"),
        (["none-1", "one-2"], "there is no checkpoint"),
        (["golf-1", "ucf-5"], "ucf-5: a classifier, which makes no clips"),
    ],
)
def test_wrong_call_exits_2_and_says_what_is_valid(runs, site, capsys, arguments, message):
    if "ucf-5" in arguments:
        _trained(site, "ucf-5", seed=5, experiment="ucf101_random")
    (site / "runs" / "none-1" / "attempts").mkdir(parents=True)
    (site / "runs" / "none-1" / "attempts" / "0001.json").write_text("{}")
    manifest = json.loads((site / "shards" / "squares" / "manifest.json").read_text())
    manifest["clip"]["width"] = 128
    (site / "shards" / "wide").mkdir()
    (site / "shards" / "wide" / "manifest.json").write_text(json.dumps(manifest))
    (site / "shards" / "wide" / "shards").symlink_to(site / "shards" / "squares" / "shards")
    assert main(["--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_checks_without_any_real_clips_are_asked_for(runs, made, site, capsys):
    (site / "shards" / "squares").rename(site / "shards" / "elsewhere")
    assert main(["golf-1", "one-2"]) == 2
    assert "give --real DATASET, or --checks 0" in capsys.readouterr().err
    assert made("golf-1", "one-2", "--checks", "0", "--clips", "2").study.fps == 25


def test_remote_runs_root_asks_for_a_folder(monkeypatch, capsys):
    monkeypatch.setenv("RUNS_ROOT", "s3://bucket/runs")
    assert main([]) == 2
    assert "needs a disk of this machine; name a folder on it with --folder" in (
        capsys.readouterr().err
    )


def test_port_that_is_taken_is_named(runs, capsys):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert main(["golf-1", "one-2", "--clips", "2", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


def test_clips_that_cannot_be_made_leave_no_half_study(runs, made, site, capsys):
    tars = list((site / "shards" / "squares" / "shards").glob("*.tar"))
    for tar in tars:
        tar.write_bytes(bytes(tar.stat().st_size))
    assert main(["golf-1", "--real", "squares", "--port", "0"]) == 1
    assert "of 40 samples cannot be read" in capsys.readouterr().err
    assert [path for path in runs.rglob("*") if path.is_file()] == []


def test_served_page_ends_with_status_0_when_told_to(runs):
    call = [sys.executable, "-m", "orchestrator.study", "golf-1", "one-2", "--clips", "2"]
    with subprocess.Popen(
        [*call, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+", line):
                page = found[0]
            if line.startswith("Ctrl-C"):
                break
        with urllib.request.urlopen(page, timeout=20) as response:
            assert b"<title>" in response.read()
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (0, "stopped\n", "")
