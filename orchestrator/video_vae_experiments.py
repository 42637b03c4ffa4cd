"""VideoVAE's experiments: its datasets, ablations and comparators, and the judges of its scores."""

from __future__ import annotations

from dataclasses import replace

from models.clip_classifier import ClipClassifierConfig
from models.deep_rotator import DeepRotatorConfig
from models.mocogan import MocoganConfig
from models.video_vae import VideoVaeConfig
from orchestrator.config import Budget, Data, Experiment, Optim

# Rate: A.4. Batch and steps are not given.
_VIDEO_VAE = Experiment(
    name="video_vae_weizmann",
    paper="VideoVAE 5.3, table 2, Weizmann",
    model=VideoVaeConfig(attributes=(10, 9)),  # by name: action, person
    data=Data(name="weizmann_people_train", global_batch=32),
    optim=Optim(lr=1e-4, beta1=0.9),
    budget=Budget(steps=20_000, checkpoint_every=1000, samples_every=1000),
)


def _video_vae() -> list[Experiment]:
    """VideoVAE on its three datasets, table 1's ablations, and table 2's comparators."""
    # By name: chair, rotation, tilt. Three clips of a chair teach nobody to tell it apart.
    model = VideoVaeConfig(frames=16, attributes=(809, 2, 2), labelled=1.0)
    chairs = replace(
        _VIDEO_VAE,
        name="video_vae_chairs",
        paper="VideoVAE 5.3, tables 1 and 2, Chair CAD, +C+S",
        model=model,
        data=replace(_VIDEO_VAE.data, name="chairs_train"),
    )
    ablations = [
        replace(
            chairs,
            name=f"video_vae_chairs_{name}",
            paper=f"VideoVAE 5.3, table 1, {title}",
            model=replace(model, conditional=c, structured=s, static=name == "static"),
        )
        for name, title, c, s in (
            ("static", "static", False, False),
            ("plain", "-C-S", False, False),
            ("structured", "-C+S", False, True),
            ("conditional", "+C-S", True, False),
        )
    ]
    flickr = replace(
        _VIDEO_VAE,
        name="video_vae_flickr",
        paper="VideoVAE 5.3, table 2, Flickr's beaches and golf courses",
        model=VideoVaeConfig(frames=32, attributes=(2,)),
        data=replace(_VIDEO_VAE.data, name="flickr_beach_golf"),
    )
    mocogan = replace(
        _VIDEO_VAE,
        name="mocogan_weizmann",
        paper="VideoVAE 5.3, table 2, MoCoGAN",
        model=MocoganConfig(frames=10),
        optim=Optim(weight_decay=1e-5),
        budget=replace(_VIDEO_VAE.budget, steps=100_000),
    )
    rotator = replace(
        chairs,
        name="deep_rotator_chairs",
        paper="VideoVAE 5.3, table 2, Deep Rotator",
        model=DeepRotatorConfig(direction=1),
    )
    return [_VIDEO_VAE, chairs, *ablations, flickr, mocogan, rotator, *_judges()]


def _judges() -> list[Experiment]:
    """The classifiers of VideoVAE's scores (5.2), by the classes that its bounds imply."""
    classes = {
        "weizmann": ClipClassifierConfig(classes=90),
        "chairs": ClipClassifierConfig(frames=16, classes=4, without="chair"),
        "flickr": ClipClassifierConfig(frames=32, classes=2),
    }
    data = {
        "weizmann": "weizmann_people_train",
        "chairs": "chairs_train",
        "flickr": "flickr_beach_golf",
    }
    return [
        Experiment(
            name=f"clip_classifier_{name}",
            paper=f"VideoVAE 5.2, judge of the scores, {name}",
            model=model,
            data=Data(name=data[name], global_batch=64),
            optim=Optim(lr=1e-3, beta1=0.9),
            budget=Budget(steps=3000, checkpoint_every=500, samples_every=1000),
        )
        for name, model in classes.items()
    ]


EXPERIMENTS = _video_vae()

_CLUSTER = ("resources.num_workers=8..32",)  # their batch is 32

SCALES: dict[type, dict[str, tuple[str, ...]]] = {
    ClipClassifierConfig: {"laptop": ("model.width=8",)},
    VideoVaeConfig: {
        "laptop": ("model.latent=64", "model.hidden=64", "model.classifier_steps=100"),
        "cluster": _CLUSTER,
    },
    MocoganConfig: {"laptop": ("model.width=8",), "cluster": _CLUSTER},
    DeepRotatorConfig: {
        "laptop": ("model.width=16", "model.units=128"),
        "cluster": _CLUSTER,
    },
}
