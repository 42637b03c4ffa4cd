"""The loop on a learner small enough to check by hand, and its exactness on VGAN itself."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from models.learner import Learner
from models.vgan import VganConfig
from orchestrator.config import Budget, Compute, Optim
from orchestrator.loop import (
    CheckpointDue,
    Loop,
    SamplesDue,
    StepsDone,
    World,
    keyed_generator,
    to_video,
)

CPU = torch.device("cpu")
G = 4


@dataclass
class Clips:
    step: int
    video_bthwc: np.ndarray
    valid_b: np.ndarray


def clips(step, rows=slice(0, G), shape=(32, 64, 64, 3)):
    rng = np.random.default_rng(step)
    video = rng.integers(0, 256, (G, *shape), dtype=np.uint8)[rows]
    return Clips(step, video, np.ones(len(video), bool))


def stream(first_step, rows=slice(0, G), shape=(32, 64, 64, 3)):
    step = first_step
    while True:
        yield clips(step, rows, shape)
        step += 1


class Mean(Learner):
    """One parameter that follows the clips' mean plus noise: its gradient is 2 (p - target)."""

    phases = ("level",)

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.level.weight)

    def noise(self, count, generator):
        return torch.randn(count, generator=generator)

    def loss(self, phase, video_bcthw, noise):
        assert phase == "level"
        target = video_bcthw.mean((1, 2, 3, 4)) + noise
        error = (self.level.weight.squeeze() - target).square().mean()
        return error, {"error": error.detach()}

    def sample(self, noise):
        return {"sample": noise.view(-1, 1, 1, 1, 1)}


def loop(learner, steps=6, world=None, compute=None, **budget):
    return Loop(
        learner,
        optim=Optim(lr=1e-2),
        budget=Budget(steps=steps, **budget),
        seed=3,
        global_batch=G,
        device=CPU,
        world=world or World(),
        compute=compute or Compute(),
    )


def _vgan():
    torch.manual_seed(0)
    return VganConfig(width=2, latent=4).build()


def vgan(steps):
    return loop(_vgan(), steps)


def test_to_video_maps_levels_to_minus_one_and_one_channels_first():
    video = np.zeros((1, 2, 3, 4, 3), np.uint8)
    video[0, 1, 2, 3] = [0, 128, 255]
    out = to_video(video, CPU)
    assert out.shape == (1, 3, 2, 3, 4)
    assert out[0, :, 1, 2, 3].tolist() == pytest.approx([-1.0, 128 / 127.5 - 1, 1.0], abs=1e-6)


def test_run_events_come_at_their_cadence_and_metrics_are_window_means():
    work = loop(Mean(), steps=7, log_every=3, checkpoint_every=4, samples_every=5)
    events = list(work.run(stream(0, shape=(1, 2, 2, 3)), 0))
    assert [(type(e), e.step) for e in events] == [
        (StepsDone, 3),
        (StepsDone, 4),
        (CheckpointDue, 4),
        (SamplesDue, 5),
        (StepsDone, 6),
        (StepsDone, 7),
        (SamplesDue, 7),
        (CheckpointDue, 7),
    ]
    assert [e.steps for e in events if isinstance(e, StepsDone)] == [3, 1, 2, 1]
    singles = loop(Mean(), steps=7, log_every=1)
    each = [
        e.metrics["error"]
        for e in singles.run(stream(0, shape=(1, 2, 2, 3)), 0)
        if "metrics" in vars(e)
    ]
    assert events[0].metrics["error"] == pytest.approx(np.mean(each[:3]))


def test_run_resumed_from_its_state_ends_bit_for_bit_where_it_would_have():
    straight = vgan(6)
    list(straight.run(stream(0), 0))
    first = vgan(3)
    list(first.run(stream(0), 0))
    second = vgan(6)
    second.load(torch.load(_saved(first.state()), weights_only=True))
    list(second.run(stream(3), 3))
    expected, got = straight.learner.state_dict(), second.learner.state_dict()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    fresh = vgan(6).learner.state_dict()
    assert not all(torch.equal(expected[name], fresh[name]) for name in expected)


def _saved(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_noise_slices_of_all_ranks_are_the_global_batch_whatever_the_world_size():
    whole = loop(Mean()).noise(5, G)
    for size in (2, 3, 4):
        bounds = [rank * G // size for rank in range(size + 1)]
        worlds = [World(rank=rank, size=size) for rank in range(size)]
        parts = [
            loop(Mean(), world=w).noise(5, bounds[w.rank + 1] - bounds[w.rank]) for w in worlds
        ]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(loop(Mean()).noise(6, G), whole)


def test_step_uneven_slices_weigh_their_gradients_to_the_global_mean():
    def gradient(rows, world):
        work = loop(Mean(), steps=1, world=world)
        list(work.run(stream(0, rows, (1, 2, 2, 3)), 0))
        return work.learner.level.weight.grad.item()

    whole = gradient(slice(0, 4), World())
    parts = [
        gradient(slice(0, 1), World(rank=0, size=3)),
        gradient(slice(1, 2), World(rank=1, size=3)),
        gradient(slice(2, 4), World(rank=2, size=3)),
    ]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-6)


def test_step_clips_each_parameters_gradient_to_the_norm():
    norms = {}
    for limit in (None, 1e-3):
        learner = _vgan()
        one = Loop(
            learner,
            optim=Optim(lr=1e-2, clip_norm=limit),
            budget=Budget(steps=1),
            seed=3,
            global_batch=G,
            device=CPU,
            world=World(),
        )
        list(one.run(stream(0), 0))
        norms[limit] = [p.grad.norm().item() for p in learner.discriminator.parameters()]
    assert max(norms[None]) > 1e-3
    for free, clipped in zip(norms[None], norms[1e-3], strict=True):
        assert clipped == pytest.approx(min(free, 1e-3), rel=0.01, abs=1e-9)


def test_step_masked_clip_has_no_influence():
    def weights(spoiled):
        batch = clips(0, shape=(1, 2, 2, 3))
        batch.valid_b[1] = False
        batch.video_bthwc[1] = spoiled
        work = loop(Mean(), steps=1)
        list(work.run(iter([batch]), 0))
        return work.learner.level.weight.grad.item()

    assert weights(0) == weights(255)
    assert weights(0) != 0.0


@pytest.mark.parametrize("parts", [2, 3, 4, 9])
def test_step_accumulated_over_parts_has_the_gradient_and_metrics_of_the_whole(parts):
    def outcome(compute, spoil):
        batch = clips(0, shape=(1, 2, 2, 3))
        batch.valid_b[spoil] = False
        work = loop(Mean(), steps=1, compute=compute)
        (done, *_) = work.run(iter([batch]), 0)
        return [work.learner.level.weight.grad.item(), done.metrics["error"]]

    for spoil in ([], [2], [0, 1, 2, 3]):
        whole = outcome(Compute(), spoil)
        assert outcome(Compute(accumulate=parts), spoil) == pytest.approx(whole, rel=1e-6)


def test_step_of_vgan_in_parts_of_one_normalises_each_by_itself():
    """With one clip a part, batch statistics are the clip's: gradients are the mean over clips."""

    def gradients(batch, compute):
        rows = [slice(0, G)] if compute.accumulate > 1 else [slice(n, n + 1) for n in range(G)]
        total = 0.0
        for part in rows:
            work = loop(_vgan(), steps=1, compute=compute)
            noise = work.learner.noise(G, keyed_generator(3, "noise", 0))
            work.noise = lambda _step, _count, z=noise[part]: z
            one = Clips(0, batch.video_bthwc[part], batch.valid_b[part])
            list(work.run(iter([one]), 0))
            total = total + work.learner.discriminator.logits.weight.grad
        return total

    batch = clips(0)
    apart = gradients(batch, Compute())
    together = gradients(batch, Compute(accumulate=G))
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-7)


def test_step_in_bf16_is_near_the_fp32_step_and_keeps_fp32_weights():
    exact, rough = vgan(1), loop(_vgan(), 1, compute=Compute(precision="bf16"))
    (one, *_), (other, *_) = exact.run(stream(0), 0), rough.run(stream(0), 0)
    assert other.metrics["d_loss"] == pytest.approx(one.metrics["d_loss"], rel=2e-2)
    assert other.metrics["d_loss"] != one.metrics["d_loss"]
    assert all(p.dtype == torch.float32 for p in rough.learner.parameters())


@pytest.mark.parametrize(
    "compiled",
    [
        False,
        # 80 s of C++ compiler on one core, which a machine need not have
        pytest.param(True, marks=pytest.mark.nightly),
    ],
)
def test_step_with_channels_last_and_compiled_has_the_plain_steps_losses(compiled):
    plain = vgan(2)
    fast = loop(_vgan(), 2, compute=Compute(channels_last=True, compile=compiled))
    (one, *_), (other, *_) = plain.run(stream(0), 0), fast.run(stream(0), 0)
    assert other.metrics == pytest.approx(one.metrics, rel=1e-3)
    assert fast.learner.state_dict().keys() == plain.learner.state_dict().keys()
