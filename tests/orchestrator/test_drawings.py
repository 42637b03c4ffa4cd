"""Bounds and captions of models that draw, against sums of their own and rendered clips."""

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator import drawings, pictures
from orchestrator.evaluate import main
from orchestrator.experiments import EXPERIMENTS
from orchestrator.generate import main as generate_main
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.trained import find_trained
from shards.bouncing import Bouncing, find_glyphs
from shards.bouncing import words as words_of
from shards.dataset import open_dataset
from shards.generated import generate
from shards.storage import open_store

SMALL = ["model.hidden=8", "model.strokes=3", "model.grid=3", "model.latent=3", "budget.steps=6"]
CLIPS = Bouncing(part="unseen", count=12)


@pytest.fixture
def digits(site):
    for name, part in (("bouncing_one_test", "test"), ("bouncing_one_unseen", "unseen")):
        clips = Bouncing(part=part, count=12)
        generate(open_store(str(site / "shards" / name)), clips, find_glyphs(None))
    return open_dataset(str(site / "shards/bouncing_one_unseen"))


@pytest.fixture
def words():
    return words_of(CLIPS.scenes)


@pytest.fixture
def drawn(finish, words):
    """`drawn(name, *assignments)`: a trained model that draws."""

    def made(name, *assignments):
        experiment = override(EXPERIMENTS[name], [*SMALL, *assignments])
        run = finish(experiment, words=words if "captions" in name else ())
        return find_trained(run, Site.from_environment())

    return made


def _judge(finish):
    reader = override(EXPERIMENTS["bouncing_reader_one"], ["model.width=1", "budget.steps=6"])
    return find_trained(finish(reader), Site.from_environment())


def test_bounds_are_the_means_of_the_clips_own(drawn, digits):
    for binary in ("false", "true"):
        model = drawn("sync_draw_one_digit", f"model.binary={binary}")
        found = drawings.bounds(model, digits, 12, 1)
        x = np.stack([CLIPS.clip(n, find_glyphs(None))[0] for n in range(12)]) / 255
        if binary == "true":
            assert found["floor"] < 0.1
            x = (x > 0.5).astype(float)
        safe = np.clip(x, 1e-7, 1 - 1e-7)
        entropy = -(x * np.log(safe) + (1 - x) * np.log(1 - safe)).reshape(12, -1).sum(1)
        assert found["floor"] == pytest.approx(entropy.mean(), rel=1e-2, abs=0.05)
        # An untrained model's canvas is near nothing: every pixel has probability one half.
        blank = np.log(2) * 10 * 64 * 64
        assert found["reconstruction"] == pytest.approx(blank, rel=0.05)
        assert found["kl"] > 0
        assert found["elbo"] == pytest.approx(-found["reconstruction"] - found["kl"])
        above = found["reconstruction"] - found["floor"]
        assert found["above_floor"] == pytest.approx(above)
        assert "iw_elbo" not in found


def test_bounds_of_more_draws_are_no_looser(drawn, digits):
    model = drawn("sync_draw_one_digit")
    found = drawings.bounds(model, digits, 12, 16)
    assert found["iw_elbo"] >= found["elbo"] - 1e-3


def test_captions_of_perfect_and_blind_readings_score_one_and_chance():
    scenes = torch.eye(20)[torch.arange(200) % 20]
    perfect = drawings._read_as(scenes + 0.1 * torch.rand(200, 20), scenes)
    assert perfect["caption_accuracy"] == perfect["digit_accuracy"] == 1
    assert perfect["motion_accuracy"] == 1
    one_motion = torch.zeros(200, 20)
    one_motion[:, ::2] = 1.0  # all digits, left and right
    blind = drawings._read_as(one_motion + torch.rand(200, 20) / 10, scenes)
    assert blind["motion_accuracy"] == 0.5
    assert blind["caption_accuracy"] < 0.2
    two = torch.zeros(2, 20)
    two[0, [3, 8]] = two[1, [6, 7]] = 1  # 1 up, 4 left; and 3 either way, which says no motion
    found = drawings._read_as(two.clone(), two)
    assert found["caption_accuracy"] == found["motion_accuracy"] == 1


def test_caption_accuracy_is_of_videos_that_were_drawn_from_the_clips_captions(
    drawn, digits, finish, monkeypatch
):
    model, judge = drawn("sync_draw_one_digit_captions"), _judge(finish)
    asked = []

    def render(seeds, given=None, captions=None):
        """In the model's place: clips with those captions, and half of them with another."""
        asked.extend(captions)
        return {"sample": np.repeat(clips[: len(captions)], 3, axis=4)}

    clips = np.stack([CLIPS.clip(n, find_glyphs(None))[0] for n in range(12)])
    monkeypatch.setattr(type(model), "sample", lambda _self, *a, **k: render(*a, **k))
    seen = torch.zeros(12, 20)
    told = {}

    def predict(video_bcthw):
        """A reader that knows the clips by heart."""
        assert video_bcthw.shape[1:] == (1, 10, 64, 64)
        rows = []
        for video in ((video_bcthw + 1) * 127.5).round().byte().numpy():
            n = next(n for n in range(12) if np.array_equal(video[0], clips[n, ..., 0]))
            row = seen[0].clone()
            note = CLIPS.clip(n, find_glyphs(None))[1]
            row[2 * note["digits"][0] + note["motions"][0]] = 1
            told[n] = note["caption"]
            rows.append(row)
        return torch.stack(rows)

    monkeypatch.setattr(judge.learner, "predict", predict)
    found, shown = drawings.caption_accuracy(model, judge, digits, 12)
    assert found["real_caption_accuracy"] == 1
    # The n-th video is clip n, and its caption that of the n-th clip read.
    right = np.mean([told[n] == caption for n, caption in enumerate(asked)])
    assert found["caption_accuracy"] == pytest.approx(right)
    assert 0 <= found["caption_accuracy_chance"] < 0.5
    assert shown["drawn"].shape == (6, 10, 64, 64, 3)


def test_strokes_are_rows_and_windows_are_drawn_on_every_frame(drawn, words):
    model = drawn("sync_draw_one_digit_captions")
    files = drawings.strokes(model, range(2), ["digit 1 is moving up and down"] * 2)
    sheet = Image.open(BytesIO(files["canvas.png"]))
    assert sheet.size[1] == 4 + 3 * 132
    assert sheet.size[0] > pictures.LABEL_WIDTH + 8 * 132
    film = Image.open(BytesIO(files["canvas.gif"]))
    assert film.n_frames == 3
    assert film.size == (4 + 10 * 128 + 4, 4 + 2 * 128 + 4)
    orange = (np.asarray(film.convert("RGB")) == (255, 96, 0)).all(2)
    per_frame = orange[4:-4, 4:-4].reshape(2, 128, 10, 128).any((1, 3))
    assert per_frame.all()
    film.seek(2)
    assert film.info["duration"] == 6 * 500  # the finished video stays


def test_evaluate_draws_reads_and_refuses(drawn, digits, finish, site, capsys):
    model, plain, judge = (
        drawn("sync_draw_one_digit_captions"),
        drawn("sync_draw_one_digit"),
        _judge(finish),
    )
    out = ["--out", str(site / "out"), "--clips", "12"]
    assert main([plain.name, *out, "--json"]) == 0  # its default: the test of what it learned
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["evaluations"][0]
    assert told["data"]["name"] == "bouncing_one_test"
    assert {"elbo", "kl", "floor"} <= set(told["metrics"])
    assert "background_std" not in told["metrics"]
    unseen = ["--data", "bouncing_one_unseen"]
    assert main([model.name, *out, *unseen, "--reader", judge.name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["evaluations"][0]
    assert 0 <= told["metrics"]["caption_accuracy"] <= 1
    assert "real_caption_accuracy" in told["metrics"]
    names = {path.name for path in (site / "out" / model.name).iterdir()}
    assert {"canvas.gif", "canvas.png", "captions.gif", "captions.png", "samples.gif"} <= names
    assert main([judge.name, *out, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["evaluations"][0]
    assert set(told["metrics"]) == {"accuracy", "accuracy_error"}
    for arguments, message in (
        ([plain.name, "--reader", judge.name], "draws from no captions"),
        ([model.name, "--reader", plain.name], "is a drawing, not a reader"),
        ([plain.name, "--draws", "0"], "--draws=0: must be from 1"),
    ):
        assert main([*arguments, *out]) == 2
        assert message in capsys.readouterr().err


def test_generate_draws_the_captions_in_turn_and_names_unknown_words(drawn, site, capsys):
    model, plain = drawn("sync_draw_one_digit_captions"), drawn("sync_draw_one_digit")
    out = ["--out", str(site / "made"), "--count", "3"]
    up, left = "digit 3 is moving up and down", "digit 7 is moving left and right"
    assert generate_main([model.name, "--caption", up, "--caption", left, *out]) == 0
    expected = model.sample(range(3), captions=[up, left, up])["sample"]
    for n in range(3):
        strip = np.asarray(Image.open(site / f"made/clips/{n:04d}.png"))
        assert np.array_equal(strip, np.concatenate(list(expected[n]), axis=1))
    assert (site / "made/canvas.gif").stat().st_size > 1000
    assert generate_main([plain.name, *out]) == 0
    capsys.readouterr()
    for arguments, message in (
        ([model.name], "give --caption TEXT"),
        (
            [model.name, "--caption", "digit 3 is movin up"],
            "no word 'movin'; did you mean 'moving'",
        ),
        ([plain.name, "--caption", up], "draws from no captions"),
    ):
        assert generate_main([*arguments, *out]) == 2
        assert message in capsys.readouterr().err
