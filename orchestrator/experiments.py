"""Every experiment of the papers as a value, and the named scales that fit one to a machine.

Adding an experiment is adding a value to `EXPERIMENTS`. Importing this room imports torch (through
the models' configs) but neither ray nor mlflow.
"""

from __future__ import annotations

from dataclasses import replace

from models.bouncing_reader import BouncingReaderConfig
from models.sync_draw import SyncDrawConfig
from models.vgan import VganConfig
from models.vgan_autoencoder import VganAutoencoderConfig
from models.vgan_classifier import VganClassifierConfig
from models.vgan_future import VganFutureConfig
from orchestrator.config import Budget, Data, Experiment, Optim, override, suggest

# Steps: the released checkpoints stopped at 65,000 (golf) and 95,000 (all of Flickr) iterations.
_SCENE_STEPS, _FLICKR_STEPS = 65_000, 95_000
_SCENES = {
    "golf": "golf course",
    "beach": "beach",
    "train_station": "train station",
    "baby": "hospital rooms (babies)",
}


def _vgan(scene: str, dataset: str, paper: str, steps: int) -> list[Experiment]:
    """The two-stream experiment of one dataset, and its one-stream twin."""
    two = Experiment(
        name=f"vgan_{scene}",
        paper=f"VGAN {paper}, two-stream",
        model=VganConfig(),
        data=Data(name=dataset),
        budget=Budget(steps=steps, checkpoint_every=1000, samples_every=1000),
    )
    one = replace(
        two,
        name=f"vgan_{scene}_one_stream",
        paper=f"VGAN {paper}, one-stream",
        model=VganConfig(two_stream=False),
    )
    return [two, one]


def _scene(scene: str, title: str) -> list[Experiment]:
    """All models of one scene category: VGAN's two, the baseline, and the future's two."""
    two, one = _vgan(scene, f"flickr_{scene}", f"3.2, table 1, {title}", _SCENE_STEPS)
    baseline = replace(
        two,
        name=f"vgan_autoencoder_{scene}",
        paper=f"VGAN 3.2, table 1, {title}, autoencoder and GMM",
        model=VganAutoencoderConfig(),
    )
    future = replace(
        two,
        name=f"vgan_future_{scene}",
        paper=f"VGAN 3.4, figures 5 and 6, {title}, the code's encoder",
        model=VganFutureConfig(),
        data=replace(two.data, global_batch=32),
    )
    printed = replace(
        future,
        name=f"vgan_future_{scene}_paper",
        paper=f"VGAN 3.4, figures 5 and 6, {title}, the paper's encoder",
        model=VganFutureConfig(encoder="paper", width=64, mask_lambda=0.1),
        data=two.data,
    )
    return [two, one, baseline, future, printed]


def _ucf101() -> list[Experiment]:
    """Figure 4's rows that are trained; the steps and the batch are the released code's."""
    finetune = Experiment(
        name="ucf101_finetune",
        paper="VGAN 3.3, figure 4, fine-tuned from init_from",
        model=VganClassifierConfig(),
        data=Data(name="ucf101_train01", global_batch=256),
        budget=Budget(steps=1000, checkpoint_every=100, samples_every=500),
    )
    random = replace(
        finetune,
        name="ucf101_random",
        paper="VGAN 3.3, figure 4, random initialisation",
        model=VganClassifierConfig(mode="random"),
    )
    logreg = replace(
        finetune,
        name="ucf101_logreg",
        paper="VGAN 3.3, figure 4a, logistic regression on init_from's features",
        model=VganClassifierConfig(mode="logreg"),
    )
    return [finetune, random, logreg]


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


EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in [
        *_vgan("unfiltered", "flickr", "3.1 and 3.3, unfiltered video", _FLICKR_STEPS),
        *(each for scene, title in _SCENES.items() for each in _scene(scene, title)),
        *_ucf101(),
        *_bouncing(1),
        *_bouncing(2),
        *_drawn_videos(),
    ]
}

# Overrides applied before the user's own, for every experiment and then by kind of model.
SCALES: dict[str, tuple[str, ...]] = {
    "laptop": (
        "data.global_batch=16",
        "data.prefetch_mib=64",
        "budget.steps=500",
        "budget.checkpoint_every=100",
        "budget.samples_every=100",
        "resources.num_workers=2",
        "resources.use_gpu=false",
        "resources.cpus_per_worker=1",
        "resources.threads=1",
    ),
    "node": ("resources.num_workers=1..8",),
    "cluster": ("resources.num_workers=8..64", "resources.sync_batch_norm=true"),
}
MODEL_SCALES: dict[type, dict[str, tuple[str, ...]]] = {
    # Five times the paper's rate: at 2e-4 the sample scenes are not to be told apart after 300
    # steps, at 1e-3 they are after 400.
    VganConfig: {"laptop": ("data.name=demo", "model.width=16", "optim.lr=1e-3")},
    VganAutoencoderConfig: {"laptop": ("data.name=demo", "model.width=16", "optim.lr=1e-3")},
    VganFutureConfig: {
        "laptop": ("data.name=demo", "model.width=16", "optim.lr=1e-3"),
        "cluster": ("resources.num_workers=8..32",),  # its batch is 32
    },
    # 84 clips of 4 classes are learned by heart in 300 steps, also by the last layer alone.
    VganClassifierConfig: {
        "laptop": ("data.name=demo", "model.width=16", "optim.lr=1e-3", "budget.steps=300")
    },
    BouncingReaderConfig: {"laptop": ("model.width=8",)},
    SyncDrawConfig: {"laptop": ("model.strokes=6", "model.hidden=128", "data.global_batch=32")},
}


def find(name: str) -> Experiment:
    """The registered experiment `name`. Raises ValueError with the nearest match."""
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}{suggest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]


def resolve(name: str, scale: str | None, assignments: list[str]) -> Experiment:
    """The experiment `name` at `scale`, with the user's overrides on top.

    Raises ValueError naming what is wrong and what is valid.
    """
    experiment = find(name)
    bundle: tuple[str, ...] = ()
    if scale is not None:
        if scale not in SCALES:
            raise ValueError(f"no scale {scale!r}{suggest(scale, SCALES)}")
        bundle = SCALES[scale] + MODEL_SCALES[type(experiment.model)].get(scale, ())
    return override(experiment, [*bundle, *assignments])
