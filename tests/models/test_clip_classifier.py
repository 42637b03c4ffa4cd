"""The judge of clips learns them by heart, whatever their size, and names wrong fields."""

import dataclasses

import pytest
import torch

from models.clip_classifier import ClipClassifierConfig

SMALL = ClipClassifierConfig(frames=5, size=20, channels=1, width=2, classes=3)


def test_classifier_learns_which_clip_is_which():
    torch.manual_seed(0)
    learner = SMALL.build()
    clips, labels = torch.rand(6, 1, 5, 20, 20) * 2 - 1, torch.tensor([0, 1, 2] * 2)
    optimiser = torch.optim.Adam(learner.parameters(), lr=1e-2)
    for _ in range(60):
        loss, metrics = learner.loss("classifier", clips, torch.empty(6, 0), joint_b=labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert metrics["accuracy"] == 1
    probability = learner.predict(clips)
    torch.testing.assert_close(probability.sum(1), torch.ones(6))
    assert learner.training
    assert learner.detectors(clips).shape == (6, 16, 2, 2, 2)


def test_loss_is_cross_entropy_of_the_condition_that_it_asks_for():
    torch.manual_seed(0)
    for joint, name in ((True, "joint_b"), (False, "label_b")):
        learner = dataclasses.replace(SMALL, joint=joint).build().eval()
        assert learner.conditions == (name,)
        clips, label = torch.rand(2, 1, 5, 20, 20), torch.tensor([2, 0])
        loss, _ = learner.loss("classifier", clips, torch.empty(2, 0), **{name: label})
        expected = -learner.predict(clips).log()[[0, 1], label].mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(ValueError, match="makes no videos"):
        learner.sample(torch.empty(2, 0))


@pytest.mark.parametrize(("field", "value"), [("frames", 3), ("size", 8), ("classes", 1)])
def test_config_names_the_field_that_is_wrong(field, value):
    with pytest.raises(ValueError, match=f"{field}={value}"):
        dataclasses.replace(SMALL, **{field: value})
