"""Metrics against numbers worked out by hand, closed forms, and SciPy's matrix root."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from models.metrics import (
    class_scores,
    confusion,
    deviation,
    flicker,
    frechet_distance,
    mean_and_error,
    of_videos,
    stillness,
)


def _clip(pixels_by_frame):
    """uint8 (1, T, 1, W, 3) of grey pixels: a row of W levels a frame."""
    levels = torch.tensor(pixels_by_frame, dtype=torch.uint8)
    return levels[None, :, None, :, None].expand(-1, -1, -1, -1, 3)


def test_deviation_and_flicker_of_still_ramp_blinking_and_jumping_pixels():
    # still at 7; a ramp 0, 2, 4, 6; blinking 10, 20, 10, 20; one jump 0, 0, 8, 8
    clip = _clip([[7, 0, 10, 0], [7, 2, 20, 0], [7, 4, 10, 8], [7, 6, 20, 8]])
    # ramp: variance (9 + 1 + 1 + 9) / 4 = 5. jump: frames 1 and 2 are each 4 off their neighbours
    assert deviation(clip).flatten().tolist() == pytest.approx([0, math.sqrt(5), 5, 4])
    assert flicker(clip).flatten().tolist() == pytest.approx([0, 0, 10, 4])


def test_deviation_is_the_root_of_the_colours_mean_variance():
    clip = torch.zeros(1, 4, 1, 1, 3, dtype=torch.uint8)
    clip[0, 2:, 0, 0, 1] = 6  # variances 0, 9, 0
    assert deviation(clip).item() == pytest.approx(math.sqrt(3))
    assert flicker(clip).item() == pytest.approx(1)  # (3 + 3) / 2 in one colour of three


def test_stillness_takes_the_stillest_half_for_background():
    clip = _clip([[7, 100, 10, 0], [7, 102, 20, 0], [7, 104, 10, 8], [7, 106, 20, 8]])
    figures = {name: value.item() for name, value in stillness(clip).items()}
    deviations = [0, math.sqrt(5), 5, 4]
    assert figures["background_std"] == pytest.approx(math.sqrt(5) / 2)  # the first two pixels
    assert figures["background_flicker"] == pytest.approx(0)
    assert figures["std"] == pytest.approx(sum(deviations) / 4)
    assert figures["flicker"] == pytest.approx((10 + 4) / 4)
    assert figures["still_share"] == pytest.approx(3 / 4)  # 0, 3 and 4 levels off, but not 5
    assert figures["contrast"] == pytest.approx(np.std([7, 103, 15, 4]))


def test_stillness_is_of_each_clip_alone_and_does_not_overflow():
    noise = torch.randint(0, 256, (3, 8, 6, 6, 3), generator=torch.Generator().manual_seed(0))
    clips = noise.to(torch.uint8)
    clips[1] = clips[1, :1]
    together = stillness(clips)
    for n in range(3):
        for name, value in stillness(clips[n : n + 1]).items():
            assert together[name][n].item() == pytest.approx(value.item(), rel=1e-5), name
    assert together["background_std"][1] == together["flicker"][1] == 0
    assert together["still_share"].tolist() == [0, 1, 0]
    assert together["contrast"][1] > 60


def test_mean_and_error_is_the_spread_over_the_root_of_the_count():
    mean, error = mean_and_error(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert mean == 3
    assert error == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3) / 2)
    assert mean_and_error(torch.tensor([5.0])) == (5.0, 0.0)


def _exactly(mean, root, count=200):
    """Samples (count, k) with exactly this mean and covariance root @ root.T."""
    mean, root = np.asarray(mean, float), np.asarray(root, float)
    raw = np.random.default_rng(0).normal(size=(count, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw.T).reshape(len(mean), -1))).T
    return torch.from_numpy(white @ root.T + mean)


def test_frechet_distance_of_gaussians_on_common_axes_is_the_closed_form():
    a = _exactly([0, 0, 0], np.diag([1, 2, 3]))
    b = _exactly([3, 4, 0], np.diag([2, 2, 1]))
    assert frechet_distance(a, b) == pytest.approx(25 + 1 + 0 + 4)
    assert frechet_distance(_exactly([1], [[3]]), _exactly([0], [[1]])) == pytest.approx(1 + 4)


def test_frechet_distance_of_turned_gaussians_is_the_two_dimensional_closed_form():
    root_a, root_b = np.array([[2, 0], [1, 1]]), np.array([[1, 0], [-3, 0.5]])
    product = root_a @ root_a.T @ root_b @ root_b.T
    trace_of_root = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    expected = np.trace(root_a @ root_a.T + root_b @ root_b.T) - 2 * trace_of_root
    a, b = _exactly([5, 5], root_a), _exactly([5, 5], root_b)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_frechet_distance_of_many_features_agrees_with_scipys_root():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(300, 40)), rng.normal(size=(300, 40)) @ rng.normal(size=(40, 40)) + 1
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    found = frechet_distance(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    assert found == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_fewer_samples_than_features_is_still_a_distance():
    rng = np.random.default_rng(2)
    a, b = (torch.from_numpy(rng.normal(size=(5, 30))) for _ in range(2))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) > 1
    assert frechet_distance(a, a + 2) == pytest.approx(30 * 4)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(1, 3), torch.zeros(4, 3), "1 samples"),
        (torch.zeros(4, 3), torch.zeros(4, 2), r"\(4, 3\) and \(4, 2\)"),
        (torch.zeros(4, 3), torch.full((4, 3), torch.nan), "not finite"),
    ],
)
def test_frechet_distance_of_what_has_none_says_why(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)


def test_of_videos_means_the_clips_of_each_so_that_the_surer_clip_decides():
    probability = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.6, 0.4], [0.1, 0.9]])
    names, mean = of_videos(probability, ["b", "a", "b", "b"])
    assert names == ["b", "a"]
    assert mean.numpy() == pytest.approx(np.array([[1.3 / 3, 1.7 / 3], [0.5, 0.5]]))


def test_confusion_counts_true_classes_by_row():
    label, predicted = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 1, 2, 2, 0])
    assert confusion(label, predicted, 3).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]


def test_class_scores_of_known_distributions():
    sure = torch.eye(4).repeat(3, 1)  # 12 videos, four classes alike
    found = class_scores(sure)
    assert found["i_score"] == pytest.approx(4)
    assert found["intra_e"] == found["intra_e_mean"] == 0
    assert found["inter_e"] == pytest.approx(np.log(4))
    vague = class_scores(torch.full((12, 4), 0.25))
    assert vague["i_score"] == pytest.approx(1)
    assert vague["intra_e"] == pytest.approx(12 * np.log(4))
    assert vague["inter_e"] == 0  # all are taken for the first class
    collapsed = class_scores(torch.eye(4)[:1].repeat(12, 1))
    assert (collapsed["i_score"], collapsed["inter_e"]) == (pytest.approx(1), 0)


def test_class_scores_are_the_printed_sums_by_scipy():
    p = torch.rand(30, 5, generator=torch.Generator().manual_seed(0)).softmax(1).double()
    rows = [scipy.stats.entropy(row) for row in p.numpy()]
    found = class_scores(p)
    assert found["intra_e"] == pytest.approx(sum(rows))
    kl = [scipy.stats.entropy(row, p.mean(0).numpy()) for row in p.numpy()]
    assert found["i_score"] == pytest.approx(np.exp(np.mean(kl)))  # Eq. 10
    counts = np.bincount(p.argmax(1).numpy(), minlength=5)
    assert found["inter_e"] == pytest.approx(scipy.stats.entropy(counts))
