"""The mixture against known Gaussians: what is fitted, what is drawn, what few codes give."""

import copy

import numpy as np
import pytest
import torch

from models.mixture import Mixture

MEANS = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 20.0]])
FACTORS = np.array([[[1.0, 0.0], [0.8, 0.6]], [[0.5, 0.0], [0.0, 2.0]], [[2.0, 0.0], [-1.0, 0.5]]])
SHARES = np.array([0.5, 0.3, 0.2])


def _codes(count, seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        mean + rng.normal(size=(round(share * count), 2)) @ factor.T
        for mean, factor, share in zip(MEANS, FACTORS, SHARES, strict=True)
    ]
    return torch.from_numpy(rng.permutation(np.concatenate(parts))).float()


def _noise(mixture, count, seed=1):
    return mixture.noise(count, torch.Generator().manual_seed(seed))


def _moments(code_nd):
    points = code_nd.double().numpy()
    return points.mean(0), np.cov(points.T)


def test_fit_finds_the_gaussians_that_the_codes_came_from():
    mixture = Mixture(3, 2)
    mixture.fit(_codes(4000), seed=0)
    nearest = [int(np.linalg.norm(MEANS - m.numpy(), axis=1).argmin()) for m in mixture.mean_kd]
    assert sorted(nearest) == [0, 1, 2]
    for k, n in enumerate(nearest):
        assert mixture.weight_k[k].item() == pytest.approx(SHARES[n], abs=0.01)
        np.testing.assert_allclose(mixture.mean_kd[k], MEANS[n], atol=0.2)
        covariance = (mixture.factor_kdd[k] @ mixture.factor_kdd[k].T).numpy()
        np.testing.assert_allclose(covariance, FACTORS[n] @ FACTORS[n].T, atol=0.4)
    assert mixture.factor_kdd.triu(1).count_nonzero() == 0


def test_draws_of_a_fitted_mixture_are_distributed_as_the_codes():
    mixture, codes = Mixture(3, 2), _codes(4000)
    mixture.fit(codes, seed=0)
    drawn = mixture.draw(_noise(mixture, 20_000))
    for ours, theirs in zip(_moments(drawn), _moments(codes), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.3)
    far = drawn[drawn[:, 1] > 12]  # only the third component is there
    assert len(far) / len(drawn) == pytest.approx(0.2, abs=0.015)
    np.testing.assert_allclose(far.mean(0), MEANS[2], atol=0.15)


def test_draw_is_a_function_of_its_row_and_survives_a_state_dict():
    mixture = Mixture(3, 2)
    mixture.fit(_codes(300), seed=4)
    noise = _noise(mixture, 9)
    drawn = mixture.draw(noise)
    other = Mixture(3, 2)
    other.load_state_dict(copy.deepcopy(mixture.state_dict()))
    torch.testing.assert_close(other.draw(noise[3:5]), drawn[3:5])
    again = Mixture(3, 2)
    again.fit(_codes(300), seed=4)
    assert torch.equal(again.draw(noise), drawn)


def test_draw_chooses_components_by_their_shares_and_never_an_empty_one():
    mixture = Mixture(4, 1)
    mixture.weight_k.copy_(torch.tensor([0.25, 0.0, 0.75, 0.0]))
    mixture.mean_kd.copy_(torch.arange(4.0)[:, None])
    chooses = torch.tensor([0.0, 0.2499, 0.25, 0.9, 1 - 2**-24])
    noise = torch.stack([chooses, torch.zeros(5)], 1)
    assert mixture.draw(noise)[:, 0].tolist() == [0, 0, 2, 2, 2]


def test_follow_before_a_fit_draws_from_the_normal_of_recent_codes():
    mixture = Mixture(3, 2)
    generator = torch.Generator().manual_seed(3)
    for _ in range(300):
        normals = torch.randn(64, 2, generator=generator)
        mixture.follow(normals * torch.tensor([0.5, 3.0]) + torch.tensor([7.0, -2.0]))
    drawn = mixture.draw(_noise(mixture, 5000))
    np.testing.assert_allclose(drawn.mean(0), [7, -2], atol=0.3)
    np.testing.assert_allclose(drawn.std(0), [0.5, 3], rtol=0.1)


def test_follow_after_a_fit_gives_the_fit_up():
    mixture = Mixture(3, 2)
    mixture.fit(_codes(300), seed=0)
    for _ in range(200):
        mixture.follow(torch.tensor([[-4.0, 0.0], [-6.0, 0.0]]))
    drawn = mixture.draw(_noise(mixture, 500))
    np.testing.assert_allclose(drawn.mean(0), [-5, 0], atol=0.2)
    np.testing.assert_allclose(drawn.std(0), [1, 0], atol=0.1)


def test_fit_of_few_codes_takes_fewer_components_and_says_so(caplog):
    mixture = Mixture(256, 2)
    codes = _codes(30)
    mixture.fit(codes, seed=0)
    assert mixture.weight_k.count_nonzero() == 3
    assert mixture.weight_k.sum().item() == pytest.approx(1)
    assert "30 codes are few: 3 components are fitted, not 256" in caplog.text
    drawn = mixture.draw(_noise(mixture, 500))
    np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=1.5)
    mixture.fit(codes[:2], seed=0)
    assert mixture.weight_k[0] == 1
    with pytest.raises(ValueError, match="1 code"):
        mixture.fit(codes[:1], seed=0)
