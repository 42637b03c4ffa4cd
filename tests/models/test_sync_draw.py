"""Sync-DRAW against torch.distributions, Monte Carlo, hand-rolled cells and the papers' counts."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from models.captions import Alignment, Sentence, Words
from models.drawing import gaussian_kl
from models.recurrent import Lstm
from models.sync_draw import SyncDrawConfig, as_video, cross_entropy

SMALL = SyncDrawConfig(frames=3, size=12, strokes=4, grid=4, hidden=16, latent=5, language=6)
KINDS = ["frame", "global", "cuboid"]
CAPTIONS = ["none", "sentence", "skip_thoughts", "aligned"]


def _built(seed=0, **fields):
    torch.manual_seed(seed)
    return dataclasses.replace(SMALL, **fields).build()


def _clips(config, count=2, seed=0):
    shape = (count, config.channels, config.frames, config.size, config.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _noise(learner, count=2, seed=0):
    return learner.noise(count, torch.Generator().manual_seed(seed))


def _caption(learner, count=2):
    if not learner.conditions:
        return {}
    if learner.conditions == ("sentence_bd",):
        rows = torch.randn(count, 6, generator=torch.Generator().manual_seed(5))
        return {"sentence_bd": rows}
    words = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]]).repeat(-(-count // 2), 1)
    return {"caption_bl": words[:count]}


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_as_many_as_in_the_code():
    drawing = SyncDrawConfig().build().drawing
    assert _count(drawing) == 3_272_980
    assert _count(drawing.encoder) == 2_573_312
    assert _count(drawing.decoder) == 365_568
    assert _count(drawing.patch) == 257_000
    assert _count(drawing.reading) == _count(drawing.writing) == 12_850
    assert _count(drawing.posterior) == 51_400


def test_lstm_is_the_cell_that_torch_has_with_one_bias_and_an_open_forget_gate():
    torch.manual_seed(0)
    mine, theirs = Lstm(3, 4), torch.nn.LSTMCell(3, 4)
    into, new, forget, out = mine.gates.weight.data.chunk(4)
    bias = list(mine.gates.bias.data.chunk(4))
    theirs.weight_ih.data = torch.cat([w[:, :3] for w in (into, forget, new, out)])
    theirs.weight_hh.data = torch.cat([w[:, 3:] for w in (into, forget, new, out)])
    theirs.bias_ih.data = torch.cat([bias[0], bias[2] + 1, bias[1], bias[3]])
    theirs.bias_hh.data.zero_()
    x, state = torch.randn(2, 3), (torch.randn(2, 4), torch.randn(2, 4))
    for a, b in zip(mine(x, state), theirs(x, state), strict=True):
        torch.testing.assert_close(a, b)


def test_gaussian_kl_is_that_of_torch_distributions_and_of_monte_carlo():
    torch.manual_seed(0)
    mu, log_sigma, prior_mu, prior_log_sigma = torch.randn(4, 7)
    q, p = Normal(mu, log_sigma.exp()), Normal(prior_mu, prior_log_sigma.exp())
    found = gaussian_kl(mu, log_sigma, prior_mu, prior_log_sigma)
    torch.testing.assert_close(found, kl_divergence(q, p))
    drawn = q.sample((400_000,))
    estimate = (q.log_prob(drawn) - p.log_prob(drawn)).mean(0)
    torch.testing.assert_close(found, estimate, rtol=0.02, atol=0.02)


def test_kl_of_all_strokes_is_the_sum_over_the_posteriors_met():
    learner = _built(captions="aligned")
    video, noise = learner.target(_clips(SMALL)), _noise(learner)
    met = []
    learner.drawing.posterior.register_forward_hook(lambda _m, _i, out: met.append(("q", out)))
    learner.drawing.prior.register_forward_hook(lambda _m, _i, out: met.append(("p", out.tanh())))
    found = learner.drawing(video, noise, *_caption(learner).values())["kl_b"]
    posteriors = [out for kind, out in met if kind == "q"]
    priors = [out for kind, out in met if kind == "p"]
    # The prior of a stroke is asked for before it and again for nothing else.
    assert len(posteriors) == len(priors) == SMALL.strokes
    expected = sum(
        kl_divergence(
            Normal(q.chunk(2, 1)[0], q.chunk(2, 1)[1].exp()),
            Normal(p.chunk(2, 1)[0], p.chunk(2, 1)[1].exp()),
        ).sum(1)
        for q, p in zip(posteriors, priors, strict=True)
    )
    torch.testing.assert_close(found, expected)
    assert (priors[0] == 0).all()  # the first stroke's prior is N(0, 1)


def test_log_ratio_is_that_of_the_z_drawn_and_its_mean_the_kl():
    learner = _built(captions="aligned")
    caption = {name: rows[:1] for name, rows in _caption(learner).items()}
    clip = _clips(SMALL)[:1]
    met = []
    learner.drawing.posterior.register_forward_hook(lambda _m, _i, out: met.append(out))
    learner.drawing.prior.register_forward_hook(lambda _m, _i, out: met.append(out.tanh()))
    noise = _noise(learner, count=1)
    found = learner.drawing(learner.target(clip), noise, *caption.values())["log_ratio_b"]
    expected = 0.0
    for t in range(SMALL.strokes):
        (q_mu, q_log), (p_mu, p_log) = (out.chunk(2, 1) for out in met[2 * t : 2 * t + 2])
        z = q_mu + q_log.exp() * noise[:, t]
        expected += (
            Normal(q_mu, q_log.exp()).log_prob(z) - Normal(p_mu, p_log.exp()).log_prob(z)
        ).sum()
    torch.testing.assert_close(found, expected[None])
    # Only z of the first stroke is independent of the others': there the mean is exactly the KL.
    one = dataclasses.replace(SMALL, strokes=1).build()
    many = one.noise(20_000, torch.Generator().manual_seed(0))
    parts = one.drawing(one.target(clip).expand(20_000, -1, -1, -1, -1), many)
    assert parts["log_ratio_b"].mean().item() == pytest.approx(parts["kl_b"][0].item(), abs=0.05)


def test_bound_is_the_loss_and_more_draws_tighten_it():
    learner = _built()
    clips, noise = _clips(SMALL), _noise(learner)
    found = learner.bound(clips, noise)
    learner.eval()
    _, metrics = learner.loss("drawing", clips, noise)
    for name in ("reconstruction", "kl"):
        assert found[name].mean().item() == pytest.approx(metrics[name].item(), rel=1e-5)
    assert (found["floor"] < found["reconstruction"]).all()
    draws = torch.stack(
        [learner.bound(clips, _noise(learner, seed=n))["log_weight"] for n in range(64)]
    )
    single = -draws.mean(0)
    many = -(draws.logsumexp(0) - math.log(64))
    assert (many < single).all()  # Burda et al. 2016, Theorem 1


def test_draw_gives_every_stroke_and_where_it_was_written():
    learner = _built()
    noise = _noise(learner)
    strokes = learner.draw(noise)
    assert len(strokes) == SMALL.strokes
    last = as_video(strokes[-1].canvas_bnchw)
    torch.testing.assert_close(last, learner.sample(noise)["sample"])
    with torch.no_grad():
        learner.drawing.writing.parameters_of.weight.zero_()
        learner.drawing.writing.parameters_of.bias.zero_()
        learner.drawing.writing.parameters_of.bias[6:9] = -9.0  # no variance: exact places
        learner.drawing.writing.parameters_of.bias[9:12] = math.log(1 / 3)
    box = learner.draw(noise)[0].box_bn4
    # Points at 6.5 + (-1.5, -0.5, 0.5, 1.5) 11 / 9 from 1 on; pixels count from 0.
    assert box.shape == (2, 3, 4)
    torch.testing.assert_close(box[0, 0, 0] + box[0, 0, 2], torch.tensor(11.0), atol=0.02, rtol=0)
    assert box[0, 0, 0].item() == pytest.approx(3.67, abs=0.5)


def test_loss_is_cross_entropy_in_nats_of_all_pixels_plus_kl():
    learner = _built()
    clips, noise = _clips(SMALL), _noise(learner)
    loss, metrics = learner.loss("drawing", clips, noise)
    parts = learner.drawing(learner.target(clips), noise)
    p, x = parts["canvas"].sigmoid(), learner.target(clips)
    by_hand = -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1).mean()
    assert metrics["reconstruction"].item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert metrics["kl"].item() == pytest.approx(parts["kl_b"].mean().item(), rel=1e-5)
    assert loss.item() == pytest.approx((metrics["reconstruction"] + metrics["kl"]).item())
    blank = cross_entropy(torch.zeros_like(x), x)
    torch.testing.assert_close(blank, torch.full((2,), math.log(2) * x[0].numel()))


def test_floor_of_grey_pixels_is_their_entropy_and_binary_ones_have_none():
    x = _built().target(_clips(SMALL))
    entropy = -(x * x.log() + (1 - x) * (1 - x).log()).flatten(1).sum(1)
    torch.testing.assert_close(cross_entropy(torch.logit(x), x), entropy, rtol=1e-4, atol=1e-3)
    binary = _built(binary=True).target(_clips(SMALL))
    assert set(binary.unique().tolist()) == {0, 1}
    assert (binary == (x > 0.5)).all()
    assert cross_entropy((binary * 2 - 1) * 50, binary).max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("captions", CAPTIONS)
def test_every_variant_learns_the_one_video_that_it_is_given(kind, captions):
    learner = _built(attention=kind, captions=captions, binary=True)
    clips = torch.full((2, 1, 3, 12, 12), -1.0)
    clips[:, :, :, 3:8, 4:6] = 1
    optimiser = torch.optim.Adam(learner.drawing.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        noise = _noise(learner, seed=step)
        loss, _ = learner.loss("drawing", clips, noise, **_caption(learner))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    assert all(p.grad is not None for p in learner.drawing.parameters())


@pytest.mark.parametrize(("kind", "windows", "patches"), [("global", 1, 3), ("cuboid", 1, 4)])
def test_variants_differ_in_windows_and_patches_alone(kind, windows, patches):
    drawing = _built(attention=kind).drawing
    each = 8 if kind == "cuboid" else 5
    assert drawing.reading.parameters_of.out_features == each * windows
    assert drawing.patch.out_features == patches * 16


def test_sample_is_drawn_from_noise_alone_and_frames_have_windows_of_their_own():
    learner = _built()
    noise = _noise(learner, count=3)
    sample = learner.sample(noise)["sample"]
    assert sample.shape == (3, 1, 3, 12, 12)
    assert sample.abs().max() <= 1
    torch.testing.assert_close(learner.sample(noise[1:2])["sample"], sample[1:2])
    parameters = torch.zeros(5, 3)
    parameters[0] = torch.tensor([-0.5, 0, 0.5])  # columns' centres, by frame
    with torch.no_grad():
        for windows in (learner.drawing.reading, learner.drawing.writing):
            windows.parameters_of.weight.zero_()
            windows.parameters_of.bias.copy_(parameters.flatten())
    columns = learner.drawing.reading.at(torch.zeros(1, 16)).columns_bnvw[0]
    middles = (columns @ torch.arange(1, 13, dtype=torch.float32)).mean(1)
    assert middles[0] < middles[1] < middles[2]


def test_sample_of_real_clips_reconstructs_them_and_knows_colours():
    learner = _built(channels=3)
    clips = _clips(learner.config)
    parts = learner.sample(_noise(learner), clips)
    torch.testing.assert_close(parts["real"], clips)
    assert parts["reconstruction"].shape == clips.shape
    assert as_video(torch.zeros(1, 3, 3, 12, 12)).unique().tolist() == [0]


@pytest.mark.parametrize("captions", ["sentence", "aligned"])
def test_caption_decides_what_is_drawn_and_words_beyond_the_last_do_not(captions):
    learner = _built(captions=captions)
    for parameter in learner.parameters():
        parameter.data.mul_(3)
    noise = _noise(learner)[:1].repeat(2, 1, 1)
    one, other = torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([[1, 2, 4, 0, 0]])
    both = learner.sample(noise, caption_bl=torch.cat([one, other]))["sample"]
    assert (both[0] - both[1]).abs().max() > 1e-4
    shorter = learner.sample(noise[:1], caption_bl=one[:, :3])["sample"]
    torch.testing.assert_close(shorter, both[:1], rtol=1e-4, atol=1e-5)


def test_words_are_those_of_torch_lstm_read_both_ways():
    torch.manual_seed(0)
    words = Words(10, 4)
    theirs = torch.nn.LSTM(4, 4, bidirectional=True, batch_first=True)
    for cell, suffix in ((words.forwards, ""), (words.backwards, "_reverse")):
        into, new, forget, out = cell.gates.weight.data.chunk(4)
        bias = list(cell.gates.bias.data.chunk(4))
        order = (into, forget, new, out)
        getattr(theirs, f"weight_ih_l0{suffix}").data = torch.cat([w[:, :4] for w in order])
        getattr(theirs, f"weight_hh_l0{suffix}").data = torch.cat([w[:, 4:] for w in order])
        joined = torch.cat([bias[0], bias[2] + 1, bias[1], bias[3]])
        getattr(theirs, f"bias_ih_l0{suffix}").data = joined
        getattr(theirs, f"bias_hh_l0{suffix}").data.zero_()
    caption = torch.tensor([[3, 1, 4]])
    expected, _ = theirs(words.embedding(caption))
    torch.testing.assert_close(words(caption), expected)
    padded = words(torch.tensor([[3, 1, 4, 0, 0]]))
    torch.testing.assert_close(padded[:, :3], expected)
    assert (padded[:, 3:] == 0).all()


def test_alignment_weighs_the_words_that_are_there_by_the_printed_formula():
    torch.manual_seed(0)
    alignment = Alignment(10, 4, 6, align=5)
    caption, hidden = torch.tensor([[3, 1, 0]]), torch.randn(1, 6)
    words = alignment.words(caption)
    weights = alignment.weights(words, hidden)
    u, w, v = alignment.of_word, alignment.of_hidden.weight, alignment.score.weight[0]
    scores = [v @ torch.tanh(u.weight @ word + u.bias + w @ hidden[0]) for word in words[0, :2]]
    torch.testing.assert_close(weights[0, :2], torch.stack(scores).softmax(0))
    assert weights[0, 2] == 0
    expected = weights[0, 0] * words[0, 0] + weights[0, 1] * words[0, 1]
    torch.testing.assert_close(alignment(words, hidden)[0], expected)


def test_sentence_is_one_vector_whatever_the_padding():
    torch.manual_seed(0)
    sentence = Sentence(10, 4)
    short, long = torch.tensor([[3, 1]]), torch.tensor([[3, 1, 0, 0]])
    torch.testing.assert_close(sentence(short), sentence(long))


@pytest.mark.parametrize(
    ("field", "value"), [("grid", 1), ("channels", 2), ("strokes", 0), ("vocabulary", 1)]
)
def test_config_names_the_field_that_is_wrong(field, value):
    with pytest.raises(ValueError, match=f"{field}={value}"):
        dataclasses.replace(SMALL, **{field: value})
