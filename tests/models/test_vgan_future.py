"""The future model against published counts, sums by hand and a plain training step."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from models.vgan_future import VganFutureConfig

PAPER = {"encoder": "paper", "latent": 6}


def _learner(**fields):
    torch.manual_seed(0)
    return VganFutureConfig(**({"width": 4} | fields)).build()


def _clips(count, seed=1):
    return torch.rand(count, 3, 32, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _no_noise(learner, count):
    return learner.noise(count, torch.Generator())


def _parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_of_the_codes_networks_equal_published_counts():
    with torch.device("meta"):
        learner = VganFutureConfig().build()
    assert _parameters(learner.generator) == 68_216_455
    assert _parameters(learner.discriminator) == 44_135_810


def test_parameters_of_the_papers_networks_are_vgans_and_five_layers():
    with torch.device("meta"):
        learner = VganFutureConfig(encoder="paper", width=64).build()
    channels = [3, 64, 128, 256, 512, 100]
    layers = [a * b * 16 + b for a, b in pairwise(channels)]
    norms = 2 * (128 + 256 + 512)
    assert _parameters(learner.generator) == 16_245_383 + sum(layers) + norms
    assert _parameters(learner.discriminator) == 11_057_858


def _shapes(module, inputs):
    seen = []
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    with torch.no_grad():
        module(inputs)
    return seen


@pytest.mark.parametrize("encoder", ["code", "paper"])
def test_generator_layers_halve_the_image_and_double_the_video(encoder):
    learner = _learner(width=16, encoder=encoder, latent=6)
    shapes = _shapes(learner.generator, torch.zeros(2, 3, 64, 64))
    down = [(16, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4)]
    moving = [(128, 2, 4, 4), (64, 4, 8, 8), (32, 8, 16, 16), (16, 16, 32, 32)]
    still = [(64, 8, 8), (32, 16, 16), (16, 32, 32), (3, 64, 64)]
    if encoder == "paper":
        down, still = [*down, (6, 1, 1)], [(128, 4, 4), *still]
    assert shapes[: len(down)] == down
    assert shapes[len(down) : len(down) + 4] == moving
    assert set(shapes[len(down) + 4 : len(down) + 6]) == {(3, 32, 64, 64), (1, 32, 64, 64)}
    assert shapes[len(down) + 6 :] == still


def test_batch_norm_is_on_the_encoders_inner_layers_with_the_codes_eps():
    encoder = [m for m in _learner(**PAPER).generator.encoder if not isinstance(m, nn.ReLU)]
    convolution, norm = nn.Conv2d, nn.BatchNorm2d
    inner = [convolution, norm] * 3
    assert [type(m) for m in encoder] == [convolution, *inner, convolution]
    assert {m.eps for m in encoder if isinstance(m, norm)} == {1e-3}
    generator = _learner().generator
    streams = [*generator.video.modules(), *generator.static.modules()]
    assert {m.eps for m in streams if isinstance(m, nn.modules.batchnorm._BatchNorm)} == {1e-5}
    assert all(
        abs(m.weight.std().item() - 0.01) < 0.001
        for m in generator.encoder
        if isinstance(m, convolution)
    )


@pytest.mark.parametrize(
    ("fields", "distance"),
    [({}, np.abs), ({"first_frame": "squared", "mask_lambda": 0.1, **PAPER}, np.square)],
)
def test_generator_loss_is_cross_entropy_and_the_first_frames_distance(fields, distance):
    learner = _learner(**fields).train()
    twin, clips = copy.deepcopy(learner), _clips(3)
    loss, metrics = learner.loss("generator", clips, _no_noise(learner, 3))
    with torch.no_grad():
        parts = twin.generator(clips[:, :, 0])
        logits = twin.discriminator(parts["sample"]).double().numpy()
    video = parts["sample"].double().numpy()
    adversarial = np.log(1 + np.exp(logits[:, 1] - logits[:, 0])).mean()
    apart = distance(video[:, :, 0] - clips[:, :, 0].double().numpy()).sum() / (3 * 3 * 64 * 64)
    mask = parts["mask"].double().numpy().sum() / (3 * 32 * 64 * 64)
    expected = adversarial + 10 * apart + learner.config.mask_lambda * mask
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["g_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert metrics["first_frame"].item() == pytest.approx(apart, rel=1e-5)
    assert metrics["mask_mean"].item() == pytest.approx(mask, rel=1e-5)


def test_fakes_of_a_step_depend_on_first_frames_alone_and_are_made_once():
    learner = _learner().train()
    clips, noise = _clips(2), _no_noise(learner, 2)
    later = clips.clone()
    later[:, :, 1:] = 0
    judged = []
    learner.discriminator.register_forward_pre_hook(lambda _m, args: judged.append(args[0]))
    learner.loss("discriminator", clips, noise)[0].backward()
    learner.loss("generator", clips, noise)[0].backward()
    _, in_d_phase, in_g_phase = judged
    assert in_d_phase.data_ptr() == in_g_phase.data_ptr()
    twin = _learner().train()
    twin.loss("discriminator", later, noise)
    torch.testing.assert_close(twin._kept[1]["sample"], in_d_phase)
    assert all(p.grad is not None for p in learner.parameters())


def test_sample_goes_on_from_each_clips_first_frame_with_the_clip_beside_it():
    learner = _learner().train()
    modes = [m.training for m in learner.modules()]
    clips = _clips(3)
    parts = learner.sample(_no_noise(learner, 3), clips)
    assert [m.training for m in learner.modules()] == modes
    assert list(parts) == ["sample", "real", "foreground", "mask", "background"]
    assert {part.shape for part in parts.values()} == {(3, 3, 32, 64, 64)}
    assert torch.equal(parts["real"], clips)
    mask = (parts["mask"] + 1) / 2
    composed = mask * parts["foreground"] + (1 - mask) * parts["background"]
    torch.testing.assert_close(parts["sample"], composed, atol=1e-5, rtol=1e-5)
    assert (parts["background"] == parts["background"][:, :, :1]).all()
    stills = learner.sample(_no_noise(learner, 2), clips[1:, :, :1])
    assert "real" not in stills
    torch.testing.assert_close(stills["sample"], parts["sample"][1:], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="give clips"):
        learner.sample(_no_noise(learner, 3))


@pytest.mark.parametrize("fields", [{}, PAPER], ids=["code", "paper"])
def test_first_frame_after_thirty_steps_is_nearer_to_its_own_image(fields):
    learner = _learner(width=8, **fields).train()
    grey = torch.tensor([-0.8, 0.8]).view(2, 1, 1, 1, 1).expand(2, 3, 32, 64, 64)
    optimizer = torch.optim.Adam(learner.generator.parameters(), lr=3e-3, betas=(0.5, 0.999))
    for _ in range(30):
        loss, metrics = learner.loss("generator", grey, _no_noise(learner, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["first_frame"] < 0.4  # the best still for both is 0.8 away


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 0), ("latent", 0), ("first_frame_lambda", -1.0), ("mask_lambda", float("inf"))],
)
def test_config_out_of_range_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}: must be"):
        VganFutureConfig(**{field: value})
