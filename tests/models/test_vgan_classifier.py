"""The classifier against torch's own dropout and sums by hand; what each mode trains and adopts."""

import copy
import math

import numpy as np
import pytest
import torch

from models.vgan import VganConfig
from models.vgan_classifier import VganClassifierConfig
from models.vgan_future import VganFutureConfig

LABEL = torch.tensor([2, 0, 1])


def _learner(**fields):
    torch.manual_seed(0)
    return VganClassifierConfig(**({"width": 2, "classes": 3} | fields)).build()


def _clips(count, seed=1):
    return torch.rand(count, 3, 32, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _noise(learner, count, seed=2):
    return learner.noise(count, torch.Generator().manual_seed(seed))


def _cross_entropy(logits, labels):
    rows = logits.detach().double().numpy()
    return np.mean(
        [math.log(np.exp(row).sum()) - row[k] for row, k in zip(rows, labels, strict=True)]
    )


def test_parameters_at_paper_width_are_those_of_d_with_101_classes():
    counts = {}
    for mode in ("finetune", "random", "logreg"):
        with torch.device("meta"):
            learner = VganClassifierConfig(mode=mode).build()
        (phase,) = learner.phases
        counts[mode] = sum(p.numel() for p in learner.get_submodule(phase).parameters())
    head = 101 * (512 * 2 * 4 * 4 + 1)
    every = 11_057_858 - 2 * (512 * 2 * 4 * 4 + 1) + head
    assert counts == {"finetune": every, "random": every, "logreg": head}


@pytest.mark.parametrize("mode", ["finetune", "random", "logreg"])
def test_loss_is_cross_entropy_behind_dropout_of_whole_channels(mode):
    learner = _learner(mode=mode).train()
    twin, clips, noise = copy.deepcopy(learner), _clips(3), _noise(learner, 3)
    seen = []
    learner.classifier.logits.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    (phase,) = learner.phases
    loss, metrics = learner.loss(phase, clips, noise, label_b=LABEL)
    with torch.no_grad():
        features = twin.classifier.features(clips)
    dropped = (noise < 0.5).numpy()
    assert 0.2 < dropped.mean() < 0.8
    expected = features.numpy() * np.where(dropped, 0.0, 2.0)[:, :, None, None, None]
    np.testing.assert_allclose(seen[0].detach().numpy(), expected, rtol=1e-5)
    logits = twin.classifier.logits(seen[0]).flatten(1)
    assert loss.item() == pytest.approx(_cross_entropy(logits, LABEL), rel=1e-5)
    assert metrics["loss"].item() == pytest.approx(loss.item())
    right = logits.argmax(1).eq(LABEL).sum().item()
    assert metrics["accuracy"].item() == pytest.approx(right / 3)


def test_dropout_leaves_each_channel_to_chance_as_torch_does():
    learner = _learner(dropout=0.3)
    kept = (_noise(learner, 2000) >= 0.3).float().numpy()
    reference = torch.nn.Dropout3d(0.3)(torch.ones(2000, 16, 2, 2, 2))
    values = {round(float(v), 4) for v in reference.unique()}
    assert values == {0.0, round(1 / 0.7, 4)}
    assert abs(kept.mean() - (reference > 0).float().mean().item()) < 0.02
    assert kept.shape == (2000, 16)


def test_finetuning_trains_all_layers_and_logistic_regression_only_the_last():
    for mode in ("finetune", "logreg"):
        learner = _learner(mode=mode).train()
        before = copy.deepcopy(learner.state_dict())
        (phase,) = learner.phases
        optimizer = torch.optim.SGD(learner.get_submodule(phase).parameters(), lr=0.1)
        learner.loss(phase, _clips(3), _noise(learner, 3), label_b=LABEL)[0].backward()
        optimizer.step()
        changed = {k for k, v in learner.state_dict().items() if not torch.equal(before[k], v)}
        if mode == "logreg":
            assert changed == {"classifier.logits.weight", "classifier.logits.bias"}
            assert learner.training
            assert not any(m.training for m in learner.classifier.features.modules())
        else:
            assert changed == set(before)


def test_adopt_takes_the_discriminators_layers_and_statistics():
    torch.manual_seed(5)
    gan = VganConfig(width=2, latent=3).build().train()
    gan.loss("discriminator", _clips(2), torch.randn(2, 3))
    learner = _learner()
    head = learner.classifier.logits.weight.clone()
    learner.adopt(gan.state_dict())
    with torch.no_grad():
        ours = learner.eval().classifier.features(_clips(2))
        theirs = gan.eval().discriminator.features(_clips(2))
    assert torch.equal(ours, theirs)
    assert torch.equal(learner.classifier.logits.weight, head)


def test_adopt_of_what_does_not_fit_says_what_to_do():
    wide = VganConfig(width=3, latent=3).build().state_dict()
    with pytest.raises(ValueError, match=r"width 3, and model.width=2: set model.width=3"):
        _learner().adopt(wide)
    with pytest.raises(ValueError, match="no discriminator"):
        _learner().adopt(_learner().state_dict())
    with pytest.raises(ValueError, match=r"mode=random .* give no init_from"):
        _learner(mode="random").adopt(VganConfig(width=2).build().state_dict())
    _learner(mode="logreg").adopt(VganFutureConfig(width=2).build().state_dict())


@pytest.mark.parametrize(("mode", "needs"), [("finetune", 1), ("logreg", 1), ("random", 0)])
def test_weights_are_needed_where_the_mode_begins_from_some(mode, needs):
    assert _learner(mode=mode).needs_weights == bool(needs)


def test_predict_gives_probabilities_of_running_statistics_without_dropout():
    learner = _learner().train()
    clips = _clips(3)
    before = copy.deepcopy(learner.state_dict())
    first = learner.predict(clips)
    assert learner.classifier.training
    assert all(torch.equal(before[k], v) for k, v in learner.state_dict().items())
    assert first.shape == (3, 3)
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-6)
    torch.testing.assert_close(learner.predict(clips[1:2]), first[1:2])
    network = learner.eval().classifier
    with torch.no_grad():
        expected = np.exp(network(clips).double().numpy())
    np.testing.assert_allclose(first, expected / expected.sum(1, keepdims=True), rtol=1e-4)


def test_sample_shows_the_clips_and_where_the_likeliest_class_is_seen():
    learner, clips = _learner(width=1).train(), _clips(2)
    for n in (0, 2, 5, 8):  # a livelier state than the start's near-zero
        learner.classifier.features[n].weight.data.mul_(20)
    parts = learner.sample(_noise(learner, 2), clips)
    assert torch.equal(parts["sample"], clips)
    assert parts["evidence"].shape == clips.shape
    network = copy.deepcopy(learner.classifier).eval()
    with torch.no_grad():
        logits = network(clips)
        features = network.features(clips)
    best = logits.argmax(1)
    summed = []
    for b in range(2):
        # Dropping one place of the features changes the logits by what it spoke for.
        place = (b, slice(None), 1, 2, 3)
        without = features.clone()
        without[place] = 0
        with torch.no_grad():
            change = logits - network.logits(without).flatten(1)
        summed.append((change[b, best[b]] - change[b].mean()).item())
    shown = parts["evidence"][:, 0, 16:, 32:48, 48:]
    assert (shown == shown[:, :1, :1, :1]).all()
    scale = [summed[b] / shown[b, 0, 0, 0].item() for b in range(2)]
    assert all(s > 0 for s in scale)
    assert parts["evidence"].abs().flatten(1).amax(1).tolist() == pytest.approx([1, 1])
    total = (parts["evidence"][:, 0].mean((1, 2, 3)) * 32 * torch.tensor(scale)).numpy()
    bias = learner.classifier.logits.bias.detach()
    centred = logits.max(1).values - logits.mean(1) - bias[best] + bias.mean()
    np.testing.assert_allclose(total, centred, rtol=1e-3)
    with pytest.raises(ValueError, match="give clips"):
        learner.sample(_noise(learner, 2))


def test_classifier_after_thirty_steps_tells_bright_from_dark():
    learner = _learner(mode="random", classes=2, width=4).train()
    clips = torch.tensor([-0.5, 0.5, -0.4, 0.4]).view(4, 1, 1, 1, 1).expand(4, 3, 32, 64, 64)
    label_b = torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.Adam(learner.classifier.parameters(), lr=3e-3, betas=(0.5, 0.999))
    for step in range(30):
        noise = _noise(learner, 4, seed=step)
        loss, _ = learner.loss("classifier", clips, noise, label_b=label_b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = learner.predict(clips)[torch.arange(4), label_b]
    assert (right > 0.9).all()


@pytest.mark.parametrize(
    ("field", "value"), [("classes", 1), ("width", 0), ("dropout", 1.0), ("dropout", math.nan)]
)
def test_config_out_of_range_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}: must be"):
        VganClassifierConfig(**{field: value})
