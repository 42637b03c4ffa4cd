"""Costs against sums by hand: VGAN layer by layer, a linear learner tensor by tensor."""

import pytest
import torch
from torch import nn

from models.learner import Learner
from models.vgan import VganConfig
from models.video_vae import VideoVaeConfig
from orchestrator.cost import step_cost
from orchestrator.hardware import expect, find_machine, machines


def convolution(c_in, c_out, kernel, positions):
    """FLOPs of one pass; positions: of the output, for a transposed one of the input."""
    return 2 * c_in * c_out * kernel * positions


def test_step_cost_vgan_is_the_sum_over_its_layers():
    config = VganConfig()
    # Output positions of D's layers: 16x32x32, 8x16x16, 4x8x8, 2x4x4, then one.
    d = [
        convolution(3, 64, 64, 16 * 32 * 32),
        convolution(64, 128, 64, 8 * 16 * 16),
        convolution(128, 256, 64, 4 * 8 * 8),
        convolution(256, 512, 64, 2 * 4 * 4),
        convolution(512, 2, 32, 1),
    ]
    video = [
        convolution(100, 512, 32, 1),
        convolution(512, 256, 64, 2 * 4 * 4),
        convolution(256, 128, 64, 4 * 8 * 8),
        convolution(128, 64, 64, 8 * 16 * 16),
        convolution(64, 3, 64, 16 * 32 * 32),
        convolution(64, 1, 64, 16 * 32 * 32),
    ]
    static = [
        convolution(100, 512, 16, 1),
        convolution(512, 256, 16, 4 * 4),
        convolution(256, 128, 16, 8 * 8),
        convolution(128, 64, 16, 16 * 16),
        convolution(64, 3, 16, 32 * 32),
    ]
    g = sum(video) + sum(static)
    first = video[0] + static[0]
    # A backward pass is two passes, one where nothing needs the gradient of the layer's input.
    discriminator = g + 2 * (3 * sum(d) - d[0])
    generator = 2 * sum(d) + 2 * g - first  # D's weights take no gradient here
    cost = step_cost(config.build, config.clip_shape)
    assert cost.flops_per_clip == {"discriminator": discriminator, "generator": generator}
    assert cost.gradients == 4 * (11_057_858 + 16_245_383)
    assert cost.adam == 2 * cost.gradients
    assert cost.checkpoint_bytes == cost.weights + cost.adam


class Linear(Learner):
    """One phase: the mean square of x W, with x of 1024 features a clip and W of 1024 x 256."""

    phases = ("layer",)

    def __init__(self, looks_at_values=False):
        super().__init__()
        self.layer = nn.Linear(1024, 256, bias=False)
        self.looks_at_values = looks_at_values

    def noise(self, count, generator):
        return torch.rand(count, 1, generator=generator)

    def loss(self, phase, video_bcthw, noise):
        loss = self.call(phase, video_bcthw.flatten(1)).square().mean() + noise.mean()
        if self.looks_at_values:
            assert loss.item() >= 0
        return loss, {}

    def sample(self, noise):
        raise NotImplementedError


@pytest.mark.parametrize("looks_at_values", [False, True], ids=["meta", "cpu"])
def test_step_cost_linear_counts_every_tensor(looks_at_values):
    cost = step_cost(lambda: Linear(looks_at_values), (1, 32, 32, 1))
    weights = 4 * 1024 * 256
    # One multiply forward, one backward: the pixels take no gradient.
    assert cost.flops == 2 * (2 * 1024 * 256)
    assert (cost.weights, cost.gradients, cost.adam) == (weights, weights, 2 * weights)
    pixels, output = 4 * 1024, 4 * 256
    assert pixels + output <= cost.activations_per_clip <= pixels + 6 * output
    at_64 = cost.peak_bytes(64)
    assert (
        4 * weights + 64 * (pixels + output) <= at_64 <= 4.1 * weights + 64 * 2 * (pixels + output)
    )


def test_step_cost_leaves_the_random_generator_as_it_was():
    before = torch.get_rng_state()
    step_cost(VganConfig(width=2).build, VganConfig().clip_shape)
    assert torch.equal(torch.get_rng_state(), before)


def test_step_cost_peak_is_near_what_the_profiler_sees_of_a_real_step():
    config = VganConfig(width=8)
    learner, clips = config.build().train(), 4
    adam = {
        phase: torch.optim.Adam(learner.get_submodule(phase).parameters())
        for phase in learner.phases
    }

    def step():
        noise = learner.noise(clips, torch.Generator())
        video_bcthw = torch.zeros(clips, 3, 32, 64, 64)
        for phase in learner.phases:
            loss, _ = learner.loss(phase, video_bcthw, noise)
            adam[phase].zero_grad()
            loss.backward()
            adam[phase].step()

    step()
    with torch.profiler.profile(profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    cost = step_cost(config.build, config.clip_shape)
    real = cost.weights + cost.gradients + cost.adam + most
    assert cost.peak_bytes(clips) == pytest.approx(real, rel=0.25)


def test_expect_is_work_over_rate_and_price_times_hours():
    machine = find_machine("8xh100")
    by_precision = {
        each.precision: each for each in expect(machine, flops_per_clip=1e11, clips=3.6e9, mfu=0.5)
    }
    bf16 = by_precision["bf16"]
    assert bf16.clips_per_s == pytest.approx(8 * 989.4e12 * 0.5 / 1e11)
    assert bf16.hours == pytest.approx(3.6e9 / bf16.clips_per_s / 3600)
    assert bf16.on_demand_usd == pytest.approx(bf16.hours * 55.04)
    assert expect(find_machine("laptop"), flops_per_clip=1.0, clips=1.0)[0].spot_usd is None


def test_machines_every_row_has_rates_memory_and_a_source():
    for machine in machines().values():
        assert machine.peak_tflops["fp32"] > 0
        assert machine.memory_gib > 0
        assert machine.source
        assert machine.as_of
        if machine.spot_usd is not None:
            assert machine.spot_usd < machine.on_demand_usd


def test_step_cost_of_a_learner_in_stages_is_of_the_stage_that_most_steps_are_in():
    config = VideoVaeConfig(frames=3, width=2, latent=4, hidden=4, attributes=(2,))
    cost = step_cost(config.build, config.clip_shape)
    # Forward and backward of the first convolution alone: 2 x 3 colours x 9 x 9 x 2 channels at
    # 56 x 56 places of 3 frames, backward to its weights as much again.
    first = 2 * 3 * 81 * 2 * 56 * 56 * 3
    assert cost.flops_per_clip["vae"] > 2 * first
