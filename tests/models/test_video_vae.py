"""VideoVAE against torch.distributions, counts by arithmetic and a step written out by hand."""

import copy
import dataclasses
import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from models.video_vae import VideoVaeConfig
from models.video_vae_attributes import shown

SMALL = VideoVaeConfig(
    frames=3, width=2, latent=6, hidden=8, attributes=(2, 3), classifier_steps=2, labelled=0.5
)
ABLATIONS = {
    "-C-S": {"conditional": False, "structured": False},
    "+C-S": {"conditional": True, "structured": False},
    "-C+S": {"conditional": False, "structured": True},
    "+C+S": {"conditional": True, "structured": True},
    "static": {"conditional": False, "structured": False, "static": True},
}
ATTRIBUTES = torch.tensor([[0, 2], [1, 0], [1, 1], [0, 1]])


def _built(seed=0, **fields):
    """A learner whose weights have left their first state, where every log sigma is 0."""
    torch.manual_seed(seed)
    learner = dataclasses.replace(SMALL, **fields).build()
    for parameter in learner.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return learner


def _second_stage(**fields):
    learner = _built(**fields)
    learner.steps = learner.config.classifier_steps
    return learner


def _clips(count=2, frames=3, seed=0):
    levels = torch.randint(
        256, (count, 3, frames, 64, 64), generator=torch.Generator().manual_seed(seed)
    )
    return levels / 127.5 - 1


def _noise(learner, count=2, seed=0):
    return learner.noise(count, torch.Generator().manual_seed(seed))


def _given(learner, count=2):
    return dict.fromkeys(learner.conditions, ATTRIBUTES[:count])


def _count(module):
    return sum(p.numel() for p in module.parameters())


def _full(*widths):
    return sum(a * b + b for a, b in pairwise(widths))


def test_layers_have_the_printed_sizes():
    learner = VideoVaeConfig(frames=2).build()
    sizes = []
    for layers in (learner.vae.encoder.convolutions, learner.vae.decoder.convolutions):
        for layer in layers:
            if not isinstance(layer, torch.nn.ReLU):
                layer.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    fulls = []
    for layers in (learner.vae.encoder.features, learner.vae.decoder.features):
        for layer in (layers[0], layers[2]):
            layer.register_forward_hook(lambda _m, i, o: fulls.append((i[0].shape[1], o.shape[1])))
    features = learner.vae.encoder(torch.zeros(1, 3, 64, 64))
    learner.vae.decoder(features)
    assert sizes == [
        *[(10, 56, 56), (20, 17, 17), (40, 13, 13), (80, 4, 4)],
        *[(40, 13, 13), (20, 17, 17), (10, 56, 56), (3, 64, 64)],
    ]
    assert fulls == [(1280, 1024), (1024, 512), (512, 1024), (1024, 1280)]


@pytest.mark.parametrize("name", ABLATIONS)
def test_parameters_are_as_many_as_by_arithmetic(name):
    with torch.device("meta"):
        learner = VideoVaeConfig(**ABLATIONS[name]).build()
    kernels = [(3, 10, 9), (10, 20, 7), (20, 40, 5), (40, 80, 3)]
    down = sum(a * b * k * k + b for a, b, k in kernels) + _full(1280, 1024, 512)
    up = sum(a * b * k * k + a for a, b, k in kernels) + _full(512, 1024, 1280)
    vae = down + up + _full(512, 512, 1024)  # psi_q
    conditional = "+C" in name
    lstm = (1024 + (512 if conditional else 0) + 512 + 1) * 4 * 512
    if "+S" in name:
        vae += _full(1024 + 19, 512, 1024) + _full(512, 512, 512) + _full(1024 + 512, 512, 1024)
        vae += _full(512, 512, 512) + _full(512 + 19, 512, 1024) + lstm
        row = _full(512, 512) + (512 + 512 + 1) * 4 * 512
        rows = 2 * row + _full(512, 9) + _full(512, 10)
        assert _count(learner.classifier) == down + rows
    elif name != "static":
        vae += _full(512, 512, 512) + _full(512, 512, 1024) + lstm
    assert _count(learner.vae) == vae
    assert [_count(learner.get_submodule(phase)) > 0 for phase in learner.phases]
    assert _count(learner) == sum(_count(learner.get_submodule(p)) for p in learner.phases)


def test_ablations_change_what_they_say_and_nothing_else():
    shapes = {
        name: {k: tuple(v.shape) for k, v in _built(**fields).vae.state_dict().items()}
        for name, fields in ABLATIONS.items()
    }

    def changed(one, other):
        return {k.split(".")[0] for k, _ in shapes[one].items() ^ shapes[other].items()}

    assert changed("-C+S", "+C+S") == changed("-C-S", "+C-S") == {"lstm"}
    assert shapes["+C+S"]["lstm.gates.weight"] == (32, 12 + 6 + 8)
    assert shapes["-C+S"]["lstm.gates.weight"] == (32, 12 + 8)
    assert changed("+C-S", "+C+S") == {"combined", "moving", "dynamic", "prior"}
    assert shapes["+C+S"]["prior.0.weight"] == (8, 6 + 5)
    assert shapes["+C-S"]["prior.0.weight"] == (8, 6)
    assert changed("-C-S", "static") == {"expecting", "prior", "lstm"}
    assert _built(**ABLATIONS["+C-S"]).phases == ("vae",)
    assert _built(**ABLATIONS["+C-S"]).conditions == ()


@pytest.mark.parametrize("activation", ["relu", "none"])
def test_first_weights_keep_the_size_of_values_and_begin_with_unit_sigma(activation):
    torch.manual_seed(0)
    vae = VideoVaeConfig(activation=activation).build().vae
    with torch.no_grad():
        features = vae.encoder(torch.randn(8, 3, 64, 64))
        assert 0.5 < features.square().mean().sqrt() < 2
        for network in (vae.initial, vae.combined, vae.dynamic, vae.prior):
            mean, log_sigma = network(torch.randn(8, network[0].in_features)).chunk(2, 1)
            assert 0.5 < mean.square().mean().sqrt() < 2
            assert (log_sigma == 0).all()
        frames = vae.decoder(torch.randn(8, 512))[:, :, 8:56, 8:56]
        assert 0.05 < frames.square().mean().sqrt() < 0.2


def _by_hand(learner, clips, noise, given):
    """(video, kl) of the full model, frame by frame, with torch's own cell."""
    vae, B = learner.vae, len(clips)
    cell = torch.nn.LSTMCell(12 + 6, 8)
    into, new, forget, out = vae.lstm.gates.weight.data.chunk(4)
    bias = list(vae.lstm.gates.bias.data.chunk(4))
    order = (into, forget, new, out)
    cell.weight_ih.data = torch.cat([w[:, :18] for w in order])
    cell.weight_hh.data = torch.cat([w[:, 18:] for w in order])
    cell.bias_ih.data = torch.cat([bias[0], bias[2] + 1, bias[1], bias[3]])
    cell.bias_hh.data.zero_()
    noise = noise.double().float()
    h, c = noise[:, 2:10], torch.zeros(B, 8)
    each = noise[:, 10:].reshape(B, 3, 6 + 256)
    frames, kl = [], torch.zeros(B)
    for t in range(3):
        x = clips[:, :, t]
        for layer in vae.encoder.convolutions:
            x = layer(x)
        x = x.flatten(1) * 2 * (each[:, t, 6:] >= 0)
        q = vae.initial(vae.encoder.features(x))
        a = vae.combined(torch.cat([q, given], 1))
        dy = vae.dynamic(torch.cat([a, vae.moving(h)], 1))
        p = vae.prior(torch.cat([vae.expecting(h), given], 1))
        posterior = Normal(dy[:, :6], dy[:, 6:].exp())
        kl = kl + kl_divergence(posterior, Normal(p[:, :6], p[:, 6:].exp())).sum(1)
        z = posterior.mean + posterior.stddev * each[:, t, :6]
        frames.append(vae.decoder.convolutions(vae.decoder.features(z).view(B, 16, 4, 4)))
        h, c = cell(torch.cat([q, z], 1), (h, c))
    return torch.stack(frames, 2), kl


def test_loss_is_that_of_a_step_by_hand_with_torchs_divergence_and_cell():
    learner = _second_stage(kl_weight=0.5, labelled=1.0)
    clips, noise = _clips(), _noise(learner)
    loss, metrics = learner.loss("vae", clips, noise, attributes_ba=ATTRIBUTES[:2])
    given = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]).float()
    video, kl = _by_hand(learner, clips, noise, given)
    l1 = (video - clips).abs().sum() / 2
    assert kl.min() > 0.1
    assert metrics["reconstruction"].item() == pytest.approx(l1.item(), rel=1e-5)
    assert metrics["kl"].item() == pytest.approx(kl.mean().item(), rel=1e-4)
    assert loss.item() == pytest.approx((l1 + 0.5 * kl.mean()).item(), rel=1e-5)


def test_static_divergence_is_to_the_unit_normal_of_every_frame_by_itself():
    learner = _built(**ABLATIONS["static"]).eval()
    clips, noise = _clips(), _noise(learner)
    _, metrics = learner.loss("vae", clips, noise)
    q = learner.vae.initial(learner.vae.encoder(clips.transpose(1, 2).flatten(0, 1)))
    expected = kl_divergence(Normal(q[:, :6], q[:, 6:].exp()), Normal(0, 1)).sum() / 2
    assert metrics["kl"].item() == pytest.approx(expected.item(), rel=1e-4)
    order = [2, 0, 1]
    draws = learner.draws(noise)
    nothing = torch.zeros(2, 3, 0)
    one = learner.vae(clips, draws.start_bx, draws.z_btd, draws.weight_btf, nothing)["video"]
    other = learner.vae(
        clips[:, :, order], draws.start_bx, draws.z_btd[:, order], draws.weight_btf, nothing
    )["video"]
    torch.testing.assert_close(other, one[:, :, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["-C+S", "+C+S", "-C-S", "+C-S"])
def test_a_frames_sample_reaches_the_next_frames_prior_only_when_conditional(name):
    learner = _second_stage(**ABLATIONS[name]).eval()
    clips, noise = _clips(), _noise(learner)
    other = noise.clone()
    first = len(learner.values) + 8
    other[:, first : first + 6] += 1  # z of the first frame
    priors = []
    learner.vae.prior.register_forward_hook(lambda _m, _i, out: priors.append(out))
    for each in (noise, other):
        learner.loss("vae", clips, each, **_given(learner))
    before, after = torch.stack(priors[:3]), torch.stack(priors[3:])
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1]) == ("-C" in name)


def test_first_stage_trains_the_classifier_alone_and_the_second_the_vae_alone():
    learner = _built(labelled=1.0)
    optimizers = {
        phase: torch.optim.Adam(learner.get_submodule(phase).parameters(), lr=1e-3)
        for phase in learner.phases
    }
    clips = _clips()
    for step, trained in enumerate(["classifier", "classifier", "vae", "vae"]):
        before = copy.deepcopy(learner.state_dict())
        for phase in learner.phases:
            optimizers[phase].zero_grad()
            loss, metrics = learner.loss(phase, clips, _noise(learner), **_given(learner))
            loss.backward()
            module = learner.get_submodule(phase)
            grads = [p.grad is not None for p in module.parameters()]
            assert all(grads) if phase == trained else not any(grads)
            assert bool(metrics) == (phase == trained)
            optimizers[phase].step()
        moved = {k.split(".")[0] for k, v in learner.state_dict().items() if (v != before[k]).any()}
        assert moved == {"_extra_state", trained}
        assert learner.steps == step + 1


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_parameter_of_every_variant_has_a_gradient(name):
    learner = _second_stage(**ABLATIONS[name])
    learner.loss("vae", _clips(), _noise(learner), **_given(learner))[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in learner.vae.parameters())


def test_a_step_in_parts_counts_once_and_its_number_goes_with_the_weights():
    learner = _built()
    clips, noise, given = _clips(), _noise(learner), _given(learner)
    with learner.local_gradients():
        learner.loss("vae", clips, noise, **given)
    assert learner.steps == 0
    learner.loss("vae", clips, noise, **given)
    assert learner.steps == 1
    learner.eval().loss("vae", clips, noise, **given)
    assert learner.steps == 1
    again = _built(seed=1)
    again.load_state_dict(learner.state_dict())
    assert again.steps == 1
    begun = _built(seed=2)
    begun.adopt(learner.state_dict())
    assert begun.steps == 1


def test_labelled_clips_are_a_function_of_their_pixels_that_takes_the_share_asked_for():
    clips = _clips(400, frames=1)[:, :, :, :8, :8]
    found = shown(clips, 0.2)
    levels = ((clips.double() + 1) * 127.5).round().long().flatten(1).tolist()
    by_hand = []
    for row in levels:
        total = sum(value * place for place, value in enumerate(row, 1))
        by_hand.append(total % (2**31 - 1) * 1_327_217_885 % (2**31 - 1) < (2**31 - 1) // 5)
    assert found.tolist() == by_hand
    assert found.float().mean().item() == pytest.approx(0.2, abs=0.06)  # three standard errors
    order = torch.randperm(400)
    assert torch.equal(shown(clips[order], 0.2), found[order])
    assert torch.equal(shown(clips[:7], 0.2), found[:7])
    assert shown(clips, 0.5)[found].all()
    assert shown(clips, 1.0).all()
    almost = clips[:1].repeat(192, 1, 1, 1, 1)  # clips that differ by one level of one pixel
    almost.flatten(1)[torch.arange(192), torch.arange(192)] += 1 / 127.5
    assert 0.1 < shown(almost, 0.2).float().mean() < 0.3


def test_classifier_loss_is_cross_entropy_of_labelled_clips_with_known_attributes():
    learner = _built()
    clips, noise = _clips(12), _noise(learner, 12)
    seen = shown(clips, 0.5)
    assert 3 <= seen.sum() <= 9
    known = ATTRIBUTES.repeat(3, 1)
    known[seen.nonzero()[0], 1] = -1
    loss, metrics = learner.loss("classifier", clips, noise, attributes_ba=known)
    draws = learner.draws(noise)
    logits = learner.classifier(clips, draws.weight_btf)
    expected, right = 0.0, 0
    for b in range(12):
        for a in range(2):
            right += (known[b, a] == logits[a][b, -1].argmax()).item() * (not seen[b])
            if seen[b] and known[b, a] >= 0:
                each = [F.cross_entropy(logits[a][b, t], known[b, a]) for t in range(3)]
                expected += sum(each).item() / 3
    assert loss.item() == pytest.approx(expected / 12 / 0.5, rel=1e-4)
    assert metrics["hidden_accuracy"].item() == pytest.approx(right / (~seen).sum().item() / 2)
    hidden = known.where(seen[:, None], 0)
    again, _ = learner.loss("classifier", clips, noise, attributes_ba=hidden)
    assert torch.equal(again, loss)


def test_vae_is_given_labels_where_shown_and_what_the_classifier_says_elsewhere():
    learner = _second_stage()
    clips, noise = _clips(12), _noise(learner, 12)
    seen, inferred = shown(clips, 0.5), learner.infer(clips)
    truth = (inferred + 1) % torch.tensor([2, 3])  # wrong everywhere, to tell them apart
    truth[seen.nonzero()[0], 0] = -1
    given = []
    learner.vae.combined.register_forward_pre_hook(lambda _m, args: given.append(args[0][..., 12:]))
    learner.loss("vae", clips, noise, attributes_ba=truth)
    used = torch.stack([given[0][..., :2].argmax(2), given[0][..., 2:].argmax(2)], 2)
    assert torch.equal(given[0].sum(2), torch.full((12, 3), 2.0))
    for b in range(12):
        for a in range(2):
            expected = truth[b, a] if seen[b] and truth[b, a] >= 0 else inferred[b, a]
            assert (used[b, :, a] == expected).all()


def test_dropout_is_drawn_from_the_noise_in_training_alone():
    learner = _second_stage()
    clips, noise, given = _clips(), _noise(learner), _given(learner)
    weight = learner.draws(noise).weight_btf
    assert set(weight.unique().tolist()) == {0.0, 2.0}
    assert weight.mean().item() == pytest.approx(1, abs=0.15)
    one, same = (learner.loss("vae", clips, noise, **given)[0] for _ in range(2))
    assert torch.equal(one, same)
    flipped = noise.clone()
    flipped[:, 10:].unflatten(1, (3, 262))[..., 6:].neg_()
    assert torch.equal(learner.draws(flipped).z_btd, learner.draws(noise).z_btd)
    assert learner.loss("vae", clips, flipped, **given)[0] != one
    learner.eval()
    still = learner.loss("vae", clips, noise, **given)[0]
    assert torch.equal(learner.loss("vae", clips, flipped, **given)[0], still)
    assert (learner.draws(noise).weight_btf == 1).all()
    quarter = _second_stage(dropout=0.25)
    weight = quarter.draws(_noise(quarter, 40)).weight_btf
    assert (weight == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_variant_learns_the_clip_that_it_is_given(name):
    learner = _second_stage(**ABLATIONS[name], width=4, latent=16, hidden=32)
    clips = torch.full((2, 3, 3, 64, 64), -0.8)
    for t in range(3):
        clips[:, :, t, 20:44, 10 + 12 * t : 22 + 12 * t] = 0.8
    optimizer = torch.optim.Adam(learner.vae.parameters(), lr=3e-3)
    found = []
    for step in range(60):
        loss, metrics = learner.loss("vae", clips, _noise(learner, seed=step), **_given(learner))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(metrics["reconstruction"])
    assert found[-1] < found[0] / 3


def test_classifier_tells_the_clips_it_was_not_shown_and_single_frames():
    learner = _built(classifier_steps=40, labelled=0.3)
    bright = torch.arange(24) % 2
    clips = _clips(24, seed=3) * 0.2 + (bright * 1.0 - 0.5).view(-1, 1, 1, 1, 1)
    clips = ((clips + 1) * 127.5).round() / 127.5 - 1
    truth = torch.stack([bright, 2 * bright], 1)
    assert 0 < shown(clips, 0.3).sum() < 16
    optimizer = torch.optim.Adam(learner.classifier.parameters(), lr=1e-2)
    for step in range(40):
        loss, metrics = learner.loss(
            "classifier", clips, _noise(learner, 24, seed=step), attributes_ba=truth
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["hidden_accuracy"] > 0.9
    assert torch.equal(learner.infer(clips), truth)
    assert torch.equal(learner.infer(clips[:, :, :1]), truth)


def test_videos_of_attributes_alone_are_set_by_attributes_and_by_a_row_of_noise():
    learner = _built()
    noise = _noise(learner, 4)
    learner.train()
    sample = learner.sample(noise, attributes_ba=ATTRIBUTES)["sample"]
    assert learner.training
    assert sample.shape == (4, 3, 3, 64, 64)
    assert sample.abs().max() <= 1
    one = learner.sample(noise[2:3], attributes_ba=ATTRIBUTES[2:3])["sample"]
    torch.testing.assert_close(one[0], sample[2], rtol=1e-4, atol=1e-5)
    other = learner.sample(noise, attributes_ba=ATTRIBUTES.roll(1, 0))["sample"]
    assert ((other - sample).abs().amax((1, 2, 3, 4)) > 1e-4).all()


def test_what_is_made_is_fed_back():
    learner = _built()
    noise = _noise(learner)
    seen = []
    learner.vae.encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    sample = learner.sample(noise, attributes_ba=ATTRIBUTES[:2])["sample"]
    assert all(torch.equal(frame, sample[:, :, t]) for t, frame in enumerate(seen))
    assert len(seen) >= 2


def test_a_first_frame_is_reconstructed_and_goes_on_from_its_posterior():
    learner = _built()
    noise, clips = _noise(learner), _clips()
    given = {"attributes_ba": ATTRIBUTES[:2]}
    parts = learner.sample(noise, clips, **given)
    assert list(parts) == ["sample", "real", "reconstruction"]
    assert torch.equal(parts["real"], clips)
    draws = learner.eval().draws(noise)
    one_hot = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]).float()[:, None].expand(-1, 3, -1)
    whole = learner.vae(clips, draws.start_bx, draws.z_btd, draws.weight_btf, one_hot)["video"]
    torch.testing.assert_close(parts["reconstruction"], whole.clamp(-1, 1), rtol=1e-4, atol=1e-5)
    assert torch.equal(parts["sample"][:, :, 0], parts["reconstruction"][:, :, 0])
    stills = learner.sample(noise, clips[:, :, :1], **given)
    assert list(stills) == ["sample"]
    assert torch.equal(stills["sample"], parts["sample"])
    others = learner.sample(noise, _clips(seed=1)[:, :, :1], **given)["sample"]
    assert ((others - stills["sample"]).abs().amax((0, 1, 3, 4)) > 1e-5).all()


def test_attributes_that_change_change_only_the_frames_from_then_on():
    learner = _built(frames=6)
    noise = _noise(learner)
    steady = ATTRIBUTES[:2][:, None].repeat(1, 6, 1)
    changing = steady.clone()
    changing[:, 3:, 1] = 1
    one = learner.sample(noise, attributes_ba=steady)["sample"]
    other = learner.sample(noise, attributes_ba=changing)["sample"]
    assert torch.equal(one, learner.sample(noise, attributes_ba=ATTRIBUTES[:2])["sample"])
    apart = (one - other).abs().amax((0, 1, 3, 4))
    assert (apart[:3] == 0).all()
    assert (apart[3:] > 1e-5).all()


def test_attributes_left_free_are_drawn_once_a_clip_or_told_from_the_first_frame():
    learner = _built()
    noise = _noise(learner, 300)
    told = []
    learner.vae.prior.register_forward_pre_hook(lambda _m, args: told.append(args[0][:, 6:]))
    free = torch.tensor([[1, -1]]).expand(300, -1)
    learner.sample(noise, attributes_ba=free)
    given = torch.stack(told[:3], 1)
    assert (given[:, :, 1] == 1).all()
    assert (given[:, :1] == given).all()
    shares = given[:, 0, 2:].mean(0)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=0.09)
    told.clear()
    clips = _clips(8)
    learner.sample(noise[:8], clips[:, :, :1], attributes_ba=torch.full((8, 2), -1))
    inferred = learner.infer(clips[:, :, :1])
    assert torch.equal(told[0][:, :2].argmax(1), inferred[:, 0])
    assert torch.equal(told[0][:, 2:].argmax(1), inferred[:, 1])


def test_any_number_of_frames_can_be_made_by_one_set_of_weights():
    learner = _built()
    longer = dataclasses.replace(SMALL, frames=7).build()
    longer.load_state_dict(learner.state_dict())
    noise = _noise(longer)
    given = {"attributes_ba": ATTRIBUTES[:2]}
    seven = longer.sample(noise, **given)["sample"]
    assert seven.shape[2] == 7
    three = learner.sample(noise[:, : _noise(learner).shape[1]], **given)["sample"]
    torch.testing.assert_close(three, seven[:, :, :3])


@pytest.mark.parametrize("name", ["-C-S", "static"])
def test_models_without_attributes_make_videos_from_noise_and_from_first_frames(name):
    learner = _built(**ABLATIONS[name])
    noise, clips = _noise(learner), _clips()
    sample = learner.sample(noise)["sample"]
    future = learner.sample(noise, clips[:, :, :1])["sample"]
    apart = (sample - future).abs().amax((0, 1, 3, 4))
    assert apart[0] > 1e-4
    assert (apart[1:] == 0).all() == (name == "static")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("frames", 1), ("width", 0), ("latent", 0), ("hidden", 0), ("classifier_steps", 0)],
        *[("attributes", ()), ("attributes", (3, 1)), ("labelled", 0.0), ("labelled", 1.5)],
        *[("dropout", 1.0), ("kl_weight", 0.0), ("kl_weight", float("inf")), ("static", True)],
    ],
)
def test_config_names_the_field_that_is_wrong(field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value!r}: ")):
        dataclasses.replace(SMALL, **{field: value})
