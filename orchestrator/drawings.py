"""What is measured of a model that draws: its bound on held-out clips, and whether a video shows
what its caption says; and pictures of the canvas as it fills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from models.bouncing_reader import likeliest, read_right
from models.metrics import mean_and_error
from models.sync_draw import SyncDraw, as_video
from orchestrator import pictures
from orchestrator.clips import some_clips
from orchestrator.conditions import scenes
from orchestrator.findings import Evaluation
from orchestrator.likeness import SHOWN, read
from orchestrator.loop import keyed_generator, to_video
from orchestrator.pictures import Pixels, to_pixels
from orchestrator.trained import Trained
from shards.dataset import Dataset

_WINDOW = (255, 96, 0)
HOW_BOUND = (
    "nats a video, means over clips: reconstruction is the binary cross entropy of all pixels, kl "
    "the divergence from the prior with its right constant, elbo minus their sum, which bounds "
    "log p from below; floor is the pixels' own entropy, below which no reconstruction of grey "
    "clips can be, 0 of binary ones; above_floor is reconstruction less floor"
)
HOW_CAPTIONS = (
    "a reader's judgement of videos drawn from the captions of the clips: caption_accuracy is the "
    "share that show all digits with their motions and nothing likelier, digit_accuracy the digits "
    "said that are seen at all, motion_accuracy those that are likelier with their motion than "
    "with the other; *_chance is the same against other clips' captions, real_* that of the clips"
)


def measure(
    out: Evaluation, trained: Trained, dataset: Dataset, reader: Trained | None, draws: int
) -> None:
    """All of it, with at most `out.clips` clips.

    reader: judges what captions come out as, if given. draws: see `bounds`. Raises ValueError where
    the reader cannot judge.
    """
    out.metrics |= bounds(trained, dataset, out.clips, draws)
    out.how["bound"] = HOW_BOUND
    captions = None
    if trained.captioned:
        captions = [note["caption"] for note in some_clips(dataset, SHOWN).notes]
    if reader is not None:
        if captions is None:
            raise ValueError(f"--reader: {trained.name} draws from no captions")
        found, shown = caption_accuracy(trained, reader, dataset, out.clips)
        out.metrics |= found
        out.how["captions"] = f"{HOW_CAPTIONS}; the reader is {reader.name}"
        out.files["captions.gif"] = pictures.animated_rows(shown, clips=SHOWN)
        out.files["captions.png"] = pictures.streams_sheet(shown, clips=SHOWN)
    seeds = range(SHOWN if captions is None else len(captions))
    made = trained.sample(seeds, captions=captions)["sample"]
    out.files["samples.gif"] = pictures.animated_grid(made)
    out.files["samples.png"] = pictures.contact_sheet(made)
    out.files |= strokes(trained, seeds, captions)


def read_all(out: Evaluation, reader: Trained, dataset: Dataset) -> None:
    """How often a reader sees all that a clip shows, over all clips."""
    right = []
    for part in read(dataset, "read"):
        score_nk = reader.learner.predict(to_video(part.video_nthwc, reader.device)).cpu()
        said_nk = torch.from_numpy(scenes([note["caption"] for note in part.notes]))
        right.append(read_right(score_nk, said_nk).double())
    out.clips = sum(map(len, right))
    out.metrics["accuracy"], out.metrics["accuracy_error"] = mean_and_error(torch.cat(right))
    out.how["accuracy"] = "the share of clips of which the likeliest things are all that they show"


def bounds(trained: Trained, dataset: Dataset, most: int, draws: int) -> dict[str, float]:
    """The bound on at most `most` clips, by name; see HOW_BOUND.

    draws: of the latent for the importance-weighted bound (Burda et al. 2016); 1 leaves it out.
    """
    learner = trained.learner
    assert isinstance(learner, SyncDraw)
    found: list[dict[str, Tensor]] = []
    generator = keyed_generator(0, "bound", 0)
    for video_bcthw, says in _read(trained, dataset, most, "bound"):
        noise = learner.noise(len(video_bcthw), generator).to(trained.device)
        terms = learner.bound(video_bcthw, noise, **says)
        weights = [terms.pop("log_weight")]
        for _ in range(draws - 1):
            noise = learner.noise(len(video_bcthw), generator).to(trained.device)
            weights.append(learner.bound(video_bcthw, noise, **says)["log_weight"])
        terms["elbo"] = -terms["reconstruction"] - terms["kl"]
        terms["above_floor"] = terms["reconstruction"] - terms["floor"]
        if draws > 1:
            terms["iw_elbo"] = torch.stack(weights).logsumexp(0) - float(np.log(draws))
        found.append({name: values.double().cpu() for name, values in terms.items()})
    out: dict[str, float] = {}
    for name in found[0]:
        mean, error = mean_and_error(torch.cat([part[name] for part in found]))
        out |= {name: mean, f"{name}_error": error}
    return out


def caption_accuracy(
    trained: Trained, reader: Trained, dataset: Dataset, most: int
) -> tuple[dict[str, float], dict[str, Pixels]]:
    """(figures, see HOW_CAPTIONS; the first videos beside the clips) of one video a clip's caption.

    Raises ValueError where the reader reads other clips.
    """
    if reader.kind != "reader":
        raise ValueError(f"--reader: {reader.name} is a {reader.kind}, not a reader")
    if reader.model.clip_shape != trained.model.clip_shape:
        raise ValueError(
            f"--reader: {reader.name} reads clips of {reader.model.clip_shape} (T, H, W, C), "
            f"{trained.name} draws {trained.model.clip_shape}"
        )
    drawn: list[Tensor] = []
    real: list[Tensor] = []
    said: list[Tensor] = []
    shown: dict[str, Pixels] = {}
    first = 0
    for part in read(dataset, "captions", most):
        captions = [note["caption"] for note in part.notes]
        seeds = range(first, first + len(part))
        made = trained.sample(seeds, captions=captions)["sample"]
        channels = trained.model.clip_shape[3]
        for videos, scores in ((made[..., :channels], drawn), (part.video_nthwc, real)):
            scores.append(reader.learner.predict(to_video(videos.copy(), reader.device)).cpu())
        said.append(torch.from_numpy(scenes(captions)))
        if not shown:
            shown = {"drawn": made[:SHOWN], "real": to_pixels(part.video_nthwc[:SHOWN])}
        first += len(part)
    scene_nk, drawn_nk, real_nk = torch.cat(said), torch.cat(drawn), torch.cat(real)
    out = _read_as(drawn_nk, scene_nk)
    out |= {f"real_{name}": value for name, value in _read_as(real_nk, scene_nk).items()}
    others = [_read_as(drawn_nk, scene_nk.roll(shift, 0)) for shift in range(1, len(scene_nk))]
    for name in ("caption_accuracy", "digit_accuracy", "motion_accuracy"):
        out[f"{name}_chance"] = float(np.mean([each[name] for each in others]))
    return out, shown


def _read_as(score_nk: Tensor, scene_nk: Tensor) -> dict[str, float]:
    """How far the reader's scores (N, 2 digit + motion) say what the captions do."""
    seen_nk = likeliest(score_nk, (scene_nk > 0).sum(1))
    said_nk = scene_nk > 0
    digit_seen, digit_said = (each.view(-1, 10, 2).any(2) for each in (seen_nk, said_nk))
    right, error = mean_and_error(read_right(score_nk, scene_nk).double())
    return {
        "caption_accuracy": right,
        "caption_accuracy_error": error,
        "digit_accuracy": float((digit_seen & digit_said).sum() / digit_said.sum()),
        "motion_accuracy": _motion(score_nk, said_nk),
    }


def _motion(score_nk: Tensor, said_nk: Tensor) -> float:
    """Of the digits said with one motion only, how many score higher with it than with the other;
    half is chance, whether or not the digit itself is seen."""
    score, said = score_nk.view(-1, 10, 2), said_nk.view(-1, 10, 2)
    one_nd = said.sum(2) == 1
    higher_nd = score.argmax(2) == said.int().argmax(2)
    return float(higher_nd[one_nd].double().mean())


def strokes(
    trained: Trained, seeds: Sequence[int], captions: Sequence[str] | None
) -> dict[str, bytes]:
    """`canvas.png`, the first video stroke by stroke, a row each (2017, Figure 2c); `canvas.gif`,
    all videos as they are drawn, with the windows of each stroke on every frame."""
    learner = trained.learner
    assert isinstance(learner, SyncDraw)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = torch.cat([learner.noise(1, generator) for generator in generators])
    drawn = learner.draw(noise.to(trained.device), **trained.conditions(captions))
    canvases = [to_pixels(as_video(stroke.canvas_bnchw)) for stroke in drawn]
    first = {f"{n}": canvas[:1] for n, canvas in enumerate(canvases, start=1)}
    steps = []
    for canvas, stroke in zip(canvases, drawn, strict=True):
        boxes = stroke.box_bn4.cpu().tolist()
        rows = [
            np.concatenate(
                [_framed(frame, box) for frame, box in zip(video, of_video, strict=True)], 1
            )
            for video, of_video in zip(canvas, boxes, strict=True)
        ]
        steps.append(np.concatenate(rows))
    steps += steps[-1:] * 5  # the finished video stays for a while
    return {
        "canvas.png": pictures.streams_sheet(first, clips=1),
        "canvas.gif": pictures.animated_grid(np.stack(steps)[None], columns=1, fps=2),
    }


def _framed(frame: Pixels, box: Sequence[float]) -> Pixels:
    """The frame with the window's edge, as far as it lies within."""
    image = Image.fromarray(frame)
    top, left, bottom, right = (round(edge) for edge in box)
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), outline=_WINDOW)
    return np.asarray(image)


def _read(
    trained: Trained, dataset: Dataset, most: int, what: str
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """(clips (B, C, T, H, W), what the learner is given beside them), a part at a time."""
    for part in read(dataset, what, most):
        captions = [note.get("caption") for note in part.notes]
        says = {} if None in captions else trained.conditions([str(each) for each in captions])
        yield to_video(part.video_nthwc, trained.device), says
