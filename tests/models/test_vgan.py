"""VGAN against the paper's figures, hand-made sums and a second, plain training step."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.vgan import Vgan, VganConfig


def _vgan(**fields: Any) -> Vgan:
    torch.manual_seed(0)
    return Vgan(VganConfig(**({"width": 4} | fields)))


def _clips(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 32, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _noise(learner: Vgan, count: int, seed: int = 2) -> Tensor:
    return learner.noise(count, torch.Generator().manual_seed(seed))


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _negative_log_softmax(logits_bk: Tensor, label: int) -> float:
    rows = logits_bk.detach().double().numpy()
    return float(np.mean([math.log(sum(math.exp(v) for v in row)) - row[label] for row in rows]))


def _gradients(module: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in module.parameters()]


def test_parameters_at_paper_width_equal_published_counts() -> None:
    two, one = Vgan(VganConfig()), Vgan(VganConfig(two_stream=False))
    assert _parameters(two.generator) == 16_245_383
    assert _parameters(one.generator) == 12_663_619
    assert _parameters(two.discriminator) == _parameters(one.discriminator) == 11_057_858


def _shapes(module: nn.Module, *inputs: Tensor) -> list[tuple[int, ...]]:
    """Output shapes, without the batch axis, of the convolutions in the order they run."""
    seen: list[tuple[int, ...]] = []
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    with torch.no_grad():
        module(*inputs)
    return seen


def test_generator_layers_at_paper_width_have_figure_1_sizes() -> None:
    shapes = _shapes(_vgan(width=64).generator, torch.zeros(2, 100))
    moving = [(512, 2, 4, 4), (256, 4, 8, 8), (128, 8, 16, 16), (64, 16, 32, 32)]
    still = [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 64, 64)]
    heads = {(3, 32, 64, 64), (1, 32, 64, 64)}
    assert shapes[:4] == moving
    assert set(shapes[4:6]) == heads
    assert shapes[6:] == still


def test_discriminator_layers_at_paper_width_reverse_the_generator() -> None:
    shapes = _shapes(_vgan(width=64).discriminator, torch.zeros(2, 3, 32, 64, 64))
    hidden = [(64, 16, 32, 32), (128, 8, 16, 16), (256, 4, 8, 8), (512, 2, 4, 4)]
    assert shapes == [*hidden, (2, 1, 1, 1)]


@pytest.mark.parametrize("two_stream", [True, False])
def test_layers_at_start_have_the_codes_distribution(two_stream: bool) -> None:
    learner = _vgan(width=32, two_stream=two_stream)
    scales = []
    for layer in learner.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            assert layer.bias is not None
            assert not layer.bias.any()
            error = 0.01 / math.sqrt(layer.weight.numel())
            assert abs(layer.weight.mean().item()) < 5 * error
            assert abs(layer.weight.std().item() - 0.01) < 5 * error
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            assert not layer.bias.any()
            scales.append(layer.weight.detach())
    pooled = torch.cat(scales)
    assert abs(pooled.mean().item() - 1) < 5 * 0.02 / math.sqrt(pooled.numel())
    assert pooled.std().item() == pytest.approx(0.02, rel=0.15)


def test_batch_norm_eps_differs_between_networks() -> None:
    learner = _vgan()
    norms = nn.modules.batchnorm._BatchNorm
    assert {m.eps for m in learner.discriminator.modules() if isinstance(m, norms)} == {1e-3}
    assert {m.eps for m in learner.generator.modules() if isinstance(m, norms)} == {1e-5}


def test_sample_of_two_streams_is_equation_2_of_its_parts() -> None:
    learner = _vgan()
    for layer in learner.generator.modules():  # a livelier state than the start's near-zero
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.weight.data.mul_(20)
    parts = {k: v.numpy() for k, v in learner.sample(_noise(learner, 2)).items()}
    mask = (parts["mask"] + 1) / 2
    for b, c, t, h, w in np.random.default_rng(0).integers(0, [2, 3, 32, 64, 64], (200, 5)):
        m, f = mask[b, c, t, h, w], parts["foreground"][b, c, t, h, w]
        still = parts["background"][b, c, 0, h, w]
        assert parts["sample"][b, c, t, h, w] == pytest.approx(m * f + (1 - m) * still, abs=1e-5)
    assert parts["sample"].std() > 0.05
    assert np.ptp(mask) > 0.01
    assert 0 <= mask.min() <= mask.max() <= 1
    assert (mask == mask[:, :1]).all()
    assert (parts["background"] == parts["background"][:, :, :1]).all()
    assert {v.shape for v in parts.values()} == {(2, 3, 32, 64, 64)}


def test_sample_of_one_stream_has_no_parts() -> None:
    learner = _vgan(two_stream=False)
    parts = learner.sample(_noise(learner, 2))
    assert list(parts) == ["sample"]
    assert parts["sample"].shape == (2, 3, 32, 64, 64)


def test_sample_leaves_modes_statistics_and_gradients_alone() -> None:
    learner = _vgan().train()
    learner.generator.video.foreground.eval()
    modes = [m.training for m in learner.modules()]
    before = copy.deepcopy(learner.state_dict())
    assert not learner.sample(_noise(learner, 2))["sample"].requires_grad
    assert [m.training for m in learner.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


def test_sample_of_sliced_noise_is_the_slice_of_the_sample() -> None:
    learner = _vgan()
    noise = _noise(learner, 5)
    whole = learner.sample(noise)["sample"]
    torch.testing.assert_close(learner.sample(noise[2:4])["sample"], whole[2:4])
    one = learner.sample(noise[:1])["sample"]
    assert one.shape == (1, 3, 32, 64, 64)
    torch.testing.assert_close(one, whole[:1])


def test_noise_is_standard_normal_and_a_function_of_the_seed() -> None:
    learner = _vgan()
    noise = _noise(learner, 500, seed=3)
    assert noise.shape == (500, 100)
    assert noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    torch.manual_seed(99)
    assert torch.equal(noise, _noise(learner, 500, seed=3))
    assert not torch.equal(noise, _noise(learner, 500, seed=4))


def test_discriminator_loss_is_the_sum_over_separate_forwards() -> None:
    learner = _vgan().train()
    twin = copy.deepcopy(learner)
    clips, noise = _clips(3), _noise(learner, 3)
    loss, metrics = learner.loss("discriminator", clips, noise)
    with torch.no_grad():
        real = twin.discriminator(clips)
        fake = twin.discriminator(twin.generator(noise)["sample"])
    expected = _negative_log_softmax(real, 0) + _negative_log_softmax(fake, 1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["d_loss"].item() == pytest.approx(expected, rel=1e-5)
    for name, logits in (("d_real", real), ("d_fake", fake)):
        chance = torch.sigmoid(logits[:, 0] - logits[:, 1]).mean().item()
        assert metrics[name].item() == pytest.approx(chance, rel=1e-5)


def test_discriminator_phase_gives_the_generator_no_gradient() -> None:
    learner = _vgan().train()
    loss, metrics = learner.loss("discriminator", _clips(2), _noise(learner, 2))
    loss.backward()
    assert all(g is None for g in _gradients(learner.generator))
    assert all(g is not None and g.isfinite().all() for g in _gradients(learner.discriminator))
    assert not any(value.requires_grad for value in metrics.values())


def _two_phases(learner: Vgan, clips: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """One step whose D update is plain SGD with rate 0.5; G's gradient is left in place."""
    learner.loss("discriminator", clips, noise)[0].backward()
    torch.optim.SGD(learner.discriminator.parameters(), lr=0.5).step()
    learner.zero_grad()
    loss, metrics = learner.loss("generator", clips, noise)
    loss.backward()
    return metrics


def test_generator_gradient_is_of_the_updated_discriminator() -> None:
    learner = _vgan().train()
    stale, twin = copy.deepcopy(learner), copy.deepcopy(learner)
    clips, noise = _clips(3), _noise(learner, 3)
    metrics = _two_phases(learner, clips, noise)

    updated = copy.deepcopy(learner.discriminator)
    parts = twin.generator(noise)
    logits = updated(parts["sample"])
    adversarial = -(logits[:, 0] - logits.logsumexp(1)).mean()
    loss = adversarial + 0.1 * parts["mask"].sum() / (3 * 32 * 64 * 64)
    loss.backward()
    assert metrics["g_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for ours, theirs in zip(_gradients(learner.generator), _gradients(twin.generator), strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)

    stale.loss("generator", clips, noise)[0].backward()
    first, old = learner.generator.video.foreground[0], stale.generator.video.foreground[0]
    assert not torch.allclose(first.weight.grad, old.weight.grad, rtol=1e-2)


def test_generator_phase_gives_the_discriminator_no_gradient() -> None:
    learner = _vgan().train()
    _two_phases(learner, _clips(2), _noise(learner, 2))
    assert all(g is None for g in _gradients(learner.discriminator))
    assert all(p.requires_grad for p in learner.parameters())


def test_phases_of_one_step_judge_the_same_fakes_made_once() -> None:
    learner = _vgan().train()
    judged: list[Tensor] = []
    learner.discriminator.register_forward_pre_hook(lambda _m, args: judged.append(args[0]))
    _two_phases(learner, _clips(2), _noise(learner, 2))
    _, in_d_phase, in_g_phase = judged
    assert in_d_phase.data_ptr() == in_g_phase.data_ptr()
    assert learner.generator.video.trunk[1].num_batches_tracked.item() == 1
    copy.deepcopy(learner)  # refused by torch while a graph of the step is held


def test_generator_phase_of_other_noise_makes_its_own_fakes() -> None:
    learner = _vgan().train()
    clips, other = _clips(2), _noise(learner, 2, seed=7)
    expected, _ = copy.deepcopy(learner).loss("generator", clips, other)
    learner.loss("discriminator", clips, _noise(learner, 2))
    loss, _ = learner.loss("generator", clips, other)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_mask_prior_gradient_is_lambda_over_elements() -> None:
    def mask_gradient(mask_lambda: float) -> Tensor:
        learner = _vgan(mask_lambda=mask_lambda).train()
        masks: list[Tensor] = []
        assert learner.generator.video.mask is not None
        learner.generator.video.mask.register_forward_hook(lambda _m, _i, out: masks.append(out))
        loss, _ = learner.loss("generator", _clips(2), _noise(learner, 2))
        return torch.autograd.grad(loss, masks[0])[0]

    difference = mask_gradient(40.0) - mask_gradient(0.0)
    each = 40.0 / (2 * 1 * 32 * 64 * 64)
    torch.testing.assert_close(difference, torch.full_like(difference, each), rtol=1e-3, atol=0)


def test_generator_loss_of_one_stream_is_cross_entropy_alone() -> None:
    learner = _vgan(two_stream=False, mask_lambda=1e6).train()
    twin = copy.deepcopy(learner)
    noise = _noise(learner, 2)
    loss, metrics = learner.loss("generator", _clips(2), noise)
    with torch.no_grad():
        logits = twin.discriminator(twin.generator(noise)["sample"])
    assert loss.item() == pytest.approx(_negative_log_softmax(logits, 0), rel=1e-5)
    assert list(metrics) == ["g_loss"]


def test_parallelize_routes_each_phase_through_the_network_it_trains() -> None:
    learner = _vgan().train()
    routed: list[str] = []

    def wrap(module: nn.Module) -> Any:
        def forward(*inputs: Tensor) -> Any:
            routed.append(type(module).__name__)
            return module(*inputs)

        return forward

    learner.parallelize(wrap)
    clips, noise = _clips(2), _noise(learner, 2)
    learner.loss("discriminator", clips, noise)
    assert sorted(set(routed)) == ["Discriminator", "Generator"]
    routed.clear()
    learner.loss("generator", clips, noise)
    assert routed == []  # G's forward was the first phase's; D is not to reduce gradients here


def test_discriminator_after_twenty_steps_tells_reals_from_fakes() -> None:
    learner = _vgan().train()
    grey = torch.linspace(-1, 1, 4).view(4, 1, 1, 1, 1).expand(4, 3, 32, 64, 64)
    optimizer = torch.optim.Adam(learner.discriminator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    for step in range(20):
        loss, metrics = learner.loss("discriminator", grey, _noise(learner, 4, seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["d_real"] > 0.9
    assert metrics["d_fake"] < 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 0), ("latent", 0), ("mask_lambda", -0.1), ("mask_lambda", math.nan)],
)
def test_config_out_of_range_names_field_and_value(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}={value!r}: must be"):
        VganConfig(**{field: value})


def test_loss_of_unknown_phase_names_the_valid_ones() -> None:
    learner = _vgan()
    with pytest.raises(ValueError, match="discriminator, generator"):
        learner.loss("encoder", _clips(1), _noise(learner, 1))
