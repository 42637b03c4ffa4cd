"""The reader learns clips by heart, and its scores are counted as said."""

import dataclasses

import pytest
import torch

from models.bouncing_reader import BouncingReaderConfig, likeliest, read_right


def test_reader_learns_which_way_a_square_moves():
    torch.manual_seed(0)
    learner = BouncingReaderConfig(frames=6, size=32, width=4).build()
    clips, scenes = torch.full((8, 1, 6, 32, 32), -1.0), torch.zeros(8, 20)
    for n in range(8):
        for t in range(6):
            at = 4 + 3 * t
            row, column = (at, 6 + n) if n % 2 else (6 + n, at)
            clips[n, 0, t, row : row + 8, column : column + 8] = 1
        scenes[n, 6 + n % 2] = 1
    optimiser = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for _ in range(40):
        loss, metrics = learner.loss("network", clips, torch.empty(8, 0), scene_bk=scenes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert metrics["accuracy"] == 1
    probability = learner.predict(clips)
    assert probability.shape == (8, 20)
    assert ((probability >= 0) & (probability <= 1)).all()
    with pytest.raises(ValueError, match="give clips"):
        learner.sample(torch.empty(8, 0))


def test_loss_is_the_binary_cross_entropy_summed_over_what_may_be_seen():
    torch.manual_seed(0)
    learner = BouncingReaderConfig(frames=4, size=16, width=1).build().eval()
    clips, scenes = torch.rand(3, 1, 4, 16, 16), (torch.rand(3, 20) > 0.8).float()
    loss, _ = learner.loss("network", clips, torch.empty(3, 0), scene_bk=scenes)
    p = learner.predict(clips)
    expected = -(scenes * p.log() + (1 - scenes) * (1 - p).log()).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_likeliest_are_as_many_as_there_are_and_all_must_be_right():
    scores = torch.tensor([[0.9, 0.5, 0.6, 0.1]] * 3)
    picked = likeliest(scores, torch.tensor([1, 2, 3]))
    assert picked.tolist() == [
        [True, False, False, False],
        [True, False, True, False],
        [True, True, True, False],
    ]
    scenes = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
    assert read_right(scores, scenes).tolist() == [True, False, True]


def test_config_names_the_field_that_is_wrong():
    for field, value in (("frames", 3), ("scenes", 10), ("width", 0)):
        with pytest.raises(ValueError, match=f"{field}={value}"):
            dataclasses.replace(BouncingReaderConfig(), **{field: value})
