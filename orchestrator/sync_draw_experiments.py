"""Sync-DRAW's experiments: its three attentions on digits, people and scenes, and a judge."""

from __future__ import annotations

from dataclasses import replace

from models.bouncing_reader import BouncingReaderConfig
from models.sync_draw import SyncDrawConfig
from orchestrator.config import Budget, Data, Experiment, Optim

# The paper's threshold of 10; the code clips at 5. Steps and batch are the code's.
_DRAWING = Optim(lr=1e-3, clip_norm=10.0)
_DIGITS = {1: "one", 2: "two"}


def _sync_draw(name: str, paper: str, model: SyncDrawConfig, dataset: str) -> Experiment:
    return Experiment(
        name=f"sync_draw_{name}",
        paper=f"Sync-DRAW {paper}",
        model=model,
        data=Data(name=dataset, global_batch=100),
        optim=_DRAWING,
        budget=Budget(steps=50_000, checkpoint_every=1000, samples_every=1000),
    )


def _bouncing(digits: int) -> list[Experiment]:
    """Table 1's columns of one or two digits: three attentions, without and with captions; and the
    captions of the first version, aligned word by word."""
    word, out = _DIGITS[digits], []
    for attention, row in (("frame", ""), ("global", "global_"), ("cuboid", "baseline_")):
        for captions, column in (("none", ""), ("sentence", "_captions")):
            title = f"4.2 to 4.6, table 1, {word} digit, {row.strip('_') or 'Sync-DRAW'}"
            model = SyncDrawConfig(attention=attention, captions=captions)  # type: ignore[arg-type]
            title += ", captions" if column else ""
            name = f"{row}{word}_digit{column}"
            out.append(_sync_draw(name, title, model, f"bouncing_{word}_train"))
    aligned = SyncDrawConfig(captions="aligned", grid=8)
    title = f"v1 3.2 and 4.5, {word} digit, aligned captions"
    out.append(_sync_draw(f"{word}_digit_aligned", title, aligned, f"bouncing_{word}_train"))
    title = f"4.5, table 1, {word} digit, captions as skip-thoughts"
    thoughts = SyncDrawConfig(captions="skip_thoughts", language=4800)
    out.append(_sync_draw(f"{word}_digit_skip_thoughts", title, thoughts, f"bouncing_{word}_train"))
    reader = Experiment(
        name=f"bouncing_reader_{word}",
        paper=f"judge of what is drawn from captions, {word} digit",
        model=BouncingReaderConfig(),
        data=Data(name=f"bouncing_{word}_all", global_batch=64),
        optim=Optim(lr=1e-3, beta1=0.9),
        budget=Budget(steps=3000, checkpoint_every=500, samples_every=1000),
    )
    return [*out, reader]


def _drawn_videos() -> list[Experiment]:
    """Sync-DRAW on videos of people and scenes. Where a paper gives no K or T, the code's."""
    kth = SyncDrawConfig(size=120, grid=12, strokes=32)
    colour = SyncDrawConfig(frames=32, channels=3)
    return [
        _sync_draw("kth", "4.4, table 2, KTH", kth, "kth"),
        _sync_draw(
            "kth_captions",
            "4.5.3, table 3, KTH, captions",
            replace(kth, captions="sentence", vocabulary=64),
            "kth_walking_running",
        ),
        _sync_draw("tgif", "v1 4.4, TGIF", SyncDrawConfig(size=128, grid=8), "tgif"),
        _sync_draw("ucf101", "4.7, UCF-101", colour, "ucf101_train01"),
        _sync_draw("flickr_golf", "4.7, VGAN's golf courses", colour, "flickr_golf"),
    ]


EXPERIMENTS = [*_bouncing(1), *_bouncing(2), *_drawn_videos()]

SCALES: dict[type, dict[str, tuple[str, ...]]] = {
    BouncingReaderConfig: {"laptop": ("model.width=8",)},
    SyncDrawConfig: {"laptop": ("model.strokes=6", "model.hidden=128", "data.global_batch=32")},
}
