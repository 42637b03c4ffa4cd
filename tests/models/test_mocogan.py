"""MoCoGAN against counts by arithmetic, torch's own GRU and losses worked out by hand."""

import copy
import math

import numpy as np
import pytest
import torch

from models.mocogan import MocoganConfig


def _learner(seed=0, **fields):
    torch.manual_seed(seed)
    small = {"frames": 5, "width": 2, "content": 4, "motion": 3}
    return MocoganConfig(**(small | fields)).build().train()


def _clips(count=3, frames=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, frames, 64, 64, generator=generator) * 2 - 1


def _noise(learner, count=3, seed=2):
    return learner.noise(count, torch.Generator().manual_seed(seed))


def _count(module):
    return sum(p.numel() for p in module.parameters())


def _softplus(x):
    return np.log1p(np.exp(x))


@pytest.mark.parametrize("categories", [0, 4])
def test_parameters_are_as_many_as_by_arithmetic(categories):
    with torch.device("meta"):
        learner = MocoganConfig(categories=categories).build()
    gru = 3 * 10 * (10 + categories + 10) + 2 * 3 * 10
    up = [(60, 512), (512, 256), (256, 128), (128, 64), (64, 3)]
    norms = 2 * (512 + 256 + 128 + 64)
    assert _count(learner.generator) == gru + norms + sum(a * b * 16 + b for a, b in up)
    down = [(3, 64), (64, 128), (128, 256)]
    frames = sum(a * b * 16 + b for a, b in [*down, (256, 1)]) + 2 * (128 + 256)
    assert _count(learner.image_discriminator) == frames
    clips = sum(a * b * 64 + b for a, b in [*down, (256, 1 + categories)]) + 2 * (128 + 256)
    assert _count(learner.video_discriminator) == clips


def test_layers_have_the_sizes_that_the_docstring_says():
    sizes = {}
    for frames in (16, 10, 1):
        discriminator = _learner(frames=frames).video_discriminator
        sizes[frames] = tuple(discriminator(_clips(2, frames)).shape)
    assert sizes == {16: (2, 1, 4, 4, 4), 10: (2, 1, 1, 4, 4), 1: (2, 1, 1, 4, 4)}
    learner = _learner(categories=3)
    assert learner.video_discriminator(_clips(2)).shape[1] == 4
    assert learner.image_discriminator(_clips(2)[:, :, 0]).shape == (2, 1, 4, 4)


def test_motion_is_torchs_gru_from_nothing_with_the_category_at_every_step():
    learner = _learner(categories=4)
    theirs = torch.nn.GRU(3 + 4, 3, batch_first=True)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(theirs, f"{name}_l0").data = getattr(learner.generator.path, name).data
    draws = learner.draws(_noise(learner))
    category = draws.category_bk[:, None].expand(-1, 5, -1)
    expected, _ = theirs(torch.cat([draws.motion_bte, category], 2))
    found = learner.generator.motion(draws.motion_bte, draws.category_bk)
    torch.testing.assert_close(found, expected)


def test_content_stays_and_motion_moves():
    learner = _learner(width=4)
    noise = _noise(learner, 1)
    draws = learner.draws(noise)
    codes = []
    learner.generator.image.register_forward_pre_hook(lambda _m, args: codes.append(args[0]))
    video = learner.sample(noise)["sample"]
    code = codes[0][:, :, 0, 0]
    assert torch.equal(code[:, :4], draws.content_by.expand(5, -1))
    assert (code[1:, 4:] != code[:-1, 4:]).all()
    assert video.shape == (1, 3, 5, 64, 64)
    assert video.abs().max() <= 1
    learner.eval()
    for t in range(5):
        torch.testing.assert_close(video[:, :, t], learner.generator.image(codes[0][t : t + 1]))


def test_frames_of_real_and_made_clips_are_drawn_apart_and_evenly():
    learner = _learner(categories=4)
    draws = learner.draws(_noise(learner, 2000))
    for place in (draws.real_b, draws.made_b):
        shares = torch.bincount(place, minlength=5) / 2000
        torch.testing.assert_close(shares, torch.full((5,), 0.2), rtol=0, atol=0.04)
    assert (draws.real_b == draws.made_b).float().mean() < 0.3
    shares = draws.category_bk.mean(0)
    torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0, atol=0.05)
    assert (draws.category_bk.sum(1) == 1).all()


@pytest.mark.parametrize("categories", [0, 4])
def test_losses_are_those_worked_out_by_hand(categories):
    learner = _learner(categories=categories, category_weight=0.5)
    twin, clips, noise = copy.deepcopy(learner), _clips(), _noise(learner)
    draws = twin.draws(noise)
    made = twin.generator(draws.content_by, draws.motion_bte, draws.category_bk).detach()
    found = {phase: learner.loss(phase, clips, noise) for phase in learner.phases}

    def logits(name, *inputs):
        with torch.no_grad():
            return [twin.get_submodule(name)(each).double().numpy() for each in inputs]

    real = torch.stack([clips[b, :, draws.real_b[b]] for b in range(3)])
    fake = torch.stack([made[b, :, draws.made_b[b]] for b in range(3)])
    real_i, fake_i = logits("image_discriminator", real, fake)
    expected = _softplus(-real_i).mean() + _softplus(fake_i).mean()
    assert found["image_discriminator"][0].item() == pytest.approx(expected, rel=1e-5)
    real_v, fake_v = logits("video_discriminator", clips, made)
    category = 0.0
    if categories:
        told = fake_v[:, 1:].mean((2, 3, 4))
        place = draws.category_bk.argmax(1).numpy()
        category = np.mean(np.log(np.exp(told).sum(1)) - told[np.arange(3), place])
        metric = found["generator"][1]["category_loss"].item()
        assert metric == pytest.approx(category, rel=1e-4)
    expected = _softplus(-real_v[:, 0]).mean() + _softplus(fake_v[:, 0]).mean() + category / 2
    assert found["video_discriminator"][0].item() == pytest.approx(expected, rel=1e-5)
    # No discriminator was updated in between.
    expected = _softplus(-fake_i).mean() + _softplus(-fake_v[:, 0]).mean() + category / 2
    assert found["generator"][0].item() == pytest.approx(expected, rel=1e-5)


def test_each_phase_trains_its_own_network_on_one_set_of_made_clips():
    learner = _learner(categories=3)
    clips, noise, judged = _clips(), _noise(learner), []
    learner.video_discriminator.register_forward_pre_hook(lambda _m, args: judged.append(args[0]))
    made = []
    learner.generator.register_forward_hook(lambda _m, _i, out: made.append(out))
    for phase in learner.phases:
        learner.zero_grad(set_to_none=True)
        learner.loss(phase, clips, noise)[0].backward()
        touched = {
            name.split(".")[0] for name, p in learner.named_parameters() if p.grad is not None
        }
        assert touched == {phase}
        assert all(p.grad is not None for p in learner.get_submodule(phase).parameters())
    assert len(made) == 1
    _, in_d_phase, in_g_phase = judged
    assert in_d_phase.data_ptr() == in_g_phase.data_ptr()
    learner.loss("generator", clips, _noise(learner, seed=5))
    assert len(made) == 2


def test_step_with_sgd_is_the_step_written_out():
    learner = _learner()
    twin, clips, noise = copy.deepcopy(learner), _clips(), _noise(learner)
    for phase in learner.phases:
        optimizer = torch.optim.SGD(learner.get_submodule(phase).parameters(), lr=0.1)
        optimizer.zero_grad()
        learner.loss(phase, clips, noise)[0].backward()
        optimizer.step()
    bce, each = torch.nn.BCEWithLogitsLoss(), torch.arange(3)
    draws = twin.draws(noise)
    made = twin.generator(draws.content_by, draws.motion_bte, draws.category_bk)
    d_i, d_v = twin.image_discriminator, twin.video_discriminator

    def step(network, loss):
        grads = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(network.parameters(), grads, strict=True):
                parameter.add_(grad, alpha=-0.1)

    one, none = torch.ones(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    real = bce(d_i(clips[each, :, draws.real_b]), one)
    step(d_i, real + bce(d_i(made[each, :, draws.made_b].detach()), none))
    real = bce(d_v(clips), one[:, :, None])
    step(d_v, real + bce(d_v(made.detach()), none[:, :, None]))
    frame = bce(d_i(made[each, :, draws.made_b]), one)
    step(twin.generator, frame + bce(d_v(made), one[:, :, None]))
    for (name, mine), theirs in zip(
        learner.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name


def test_made_clips_after_ninety_steps_are_brighter_where_the_real_ones_are():
    learner = _learner(width=8, frames=3)
    clips = torch.full((6, 3, 3, 64, 64), -0.7)
    clips[..., 32:] = 0.7
    clips += torch.linspace(-0.2, 0.2, 6).view(-1, 1, 1, 1, 1)
    optimizers = {
        phase: torch.optim.Adam(
            learner.get_submodule(phase).parameters(), lr=2e-3, betas=(0.5, 0.999)
        )
        for phase in learner.phases
    }
    contrast = []
    for step in range(90):
        noise = _noise(learner, 6, seed=step)
        with torch.no_grad():
            made = learner.generator(*learner.draws(noise)[:3])
            contrast.append((made[..., 32:].mean() - made[..., :32].mean()).item())
        for phase in learner.phases:
            optimizers[phase].zero_grad()
            learner.loss(phase, clips, noise)[0].backward()
            optimizers[phase].step()
    assert abs(contrast[0]) < 0.02
    assert contrast[-1] > 0.08


def test_any_number_of_frames_can_be_made_and_a_row_of_noise_is_a_video():
    learner = _learner()
    longer = learner.config.__class__(frames=9, width=2, content=4, motion=3).build()
    longer.generator.load_state_dict(learner.generator.state_dict())
    noise = _noise(longer)
    nine = longer.sample(noise)["sample"]
    assert nine.shape == (3, 3, 9, 64, 64)
    modes = [m.training for m in learner.modules()]
    five = learner.sample(noise[1:2, : _noise(learner).shape[1]])["sample"]
    assert [m.training for m in learner.modules()] == modes
    torch.testing.assert_close(five, nine[1:2, :, :5])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frames", 0),
        ("width", 0),
        ("content", 0),
        ("motion", 0),
        ("categories", 1),
        ("categories", -1),
        ("category_weight", -1.0),
        ("category_weight", math.inf),
    ],
)
def test_config_out_of_range_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}: must be"):
        MocoganConfig(**{field: value})


def test_unknown_phase_names_the_phases_there_are():
    learner = _learner()
    with pytest.raises(ValueError, match="image_discriminator, video_discriminator, generator"):
        learner.loss("discriminator", _clips(), _noise(learner))
