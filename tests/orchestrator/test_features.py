"""Features for a Frechet distance: a classifier's, and of TorchScript files made here."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from orchestrator.experiments import EXPERIMENTS
from orchestrator.features import of_classifier, of_i3d
from orchestrator.overrides import override
from orchestrator.site import Site
from orchestrator.trained import find_trained

CPU = torch.device("cpu")


class Published(nn.Module):
    """Takes what StyleGAN-V's port of I3D takes, and answers with what it was given."""

    def forward(
        self,
        x: torch.Tensor,
        rescale: bool = False,
        resize: bool = False,
        return_features: bool = False,
    ) -> torch.Tensor:
        told = torch.tensor([float(rescale), float(resize), float(return_features)])
        size = torch.tensor([float(x.shape[2]), float(x.shape[3])])
        extremes = torch.stack([x.amin((1, 2, 3, 4)), x.amax((1, 2, 3, 4))], 1)
        return torch.cat([extremes, torch.cat([told, size]).expand(x.shape[0], -1)], 1)


class Plain(nn.Module):
    """Takes a video alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = torch.tensor([float(x.shape[1]), float(x.shape[3]), float(x.shape[4])])
        extremes = torch.stack([x.amin((1, 2, 3, 4)), x.amax((1, 2, 3, 4))], 1)
        halves = torch.stack([x[:, 0, 0, :, :112].mean((1, 2)), x[:, 0, -1, :, 112:].mean((1, 2))])
        return torch.cat([extremes, halves.T, size.expand(x.shape[0], -1)], 1)


class Maps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


class Narrow(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :, 224:, 224:].reshape(x.shape[0], 5)


def _saved(module: nn.Module, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return str(path)


def _clips():
    """Two clips: dark, with a white right half in the last frame; and even grey."""
    clips = np.zeros((2, 16, 64, 64, 3), np.uint8)
    clips[0, -1, :, 32:] = 255
    clips[1] = 51
    return clips


def test_i3d_with_options_of_its_own_is_asked_to_rescale_and_resize(tmp_path):
    features = of_i3d(_saved(Published(), tmp_path / "i3d.pt"), CPU)
    assert features.metric == "fvd"
    assert "levels 0 to 255" in features.how
    told = [1, 1, 1, 16, 64]
    assert features.of(_clips()).tolist() == [[0, 255, *told], [51, 51, *told]]


def test_i3d_without_options_gets_minus_one_to_one_at_224_pixels(tmp_path):
    features = of_i3d(_saved(Plain(), tmp_path / "i3d.pt"), CPU)
    assert "[-1, 1] at 224 x 224" in features.how
    found = features.of(_clips())
    assert found[:, :2].numpy() == pytest.approx(np.array([[-1, 1], [-0.6, -0.6]]))
    assert found[0, 2:4].tolist() == pytest.approx([-1, 1], abs=0.02)  # in time and place
    assert found[:, 4:].tolist() == [[3, 224, 224]] * 2


def test_i3d_that_is_no_file_no_torchscript_or_no_features_says_so(tmp_path):
    text = tmp_path / "weights.pt"
    text.write_text("hello")
    plain = tmp_path / "state.pt"
    torch.save({"a": torch.zeros(2)}, plain)
    for path, message in [(tmp_path / "no.pt", "cannot be read"), (text, "not a TorchScript file")]:
        with pytest.raises(ValueError, match=message):
            of_i3d(str(path), CPU)
    with pytest.raises(ValueError, match="not a TorchScript file"):
        of_i3d(str(plain), CPU)
    maps = of_i3d(_saved(Maps(), tmp_path / "maps.pt"), CPU)
    with pytest.raises(ValueError, match=r"of 2 clips it makes \(2, 16, 224, 224\), not \(clips"):
        maps.of(_clips())
    narrow = of_i3d(_saved(Narrow(), tmp_path / "narrow.pt"), CPU)
    with pytest.raises(ValueError, match=r"does not take clips of \(2, 16, 64, 64, 3\): "):
        narrow.of(_clips())


def _experiment(name, *more):
    return override(EXPERIMENTS[name], ["model.width=1", "budget.steps=6", *more])


def test_classifier_features_are_the_mean_of_its_last_layer(finish, site):
    run = finish(_experiment("ucf101_random", "model.classes=2"), scale=40)
    trained = find_trained(run, Site.from_environment())
    features = of_classifier(trained)
    assert features.metric == "frechet_classifier"
    assert features.how.startswith(f"Frechet distance in the features of {run} at step 6")
    clips = np.random.default_rng(0).integers(0, 256, (3, 32, 64, 64, 3), dtype=np.uint8)
    video = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        maps = trained.learner.classifier.features(video)
    assert maps.shape == (3, 8, 2, 4, 4)
    assert torch.allclose(features.of(clips), maps.mean((2, 3, 4)), atol=1e-6)


def test_classifier_that_is_none_is_refused(finish, site):
    run = finish(_experiment("vgan_golf", "model.latent=3"))
    with pytest.raises(ValueError, match=f"--classifier: {run} is a generator, not a classifier"):
        of_classifier(find_trained(run, Site.from_environment()))
