"""Windows against the printed formulas, written as loops over single places."""

import math

import pytest
import torch

from models.attention import (
    Cuboid,
    Window,
    cuboid,
    filterbank,
    read,
    read_cuboid,
    window,
    write,
    write_cuboid,
)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _row(centre, stride, sigma, u, points, length):
    """Row u (from 1) of a filterbank by Eq. 1 and 3, with Z as the sum."""
    mu = centre + (u - points / 2 - 0.5) * stride
    row = [math.exp(-((a - mu) ** 2) / (2 * sigma**2)) for a in range(1, length + 1)]
    return [value / sum(row) for value in row]


def test_filterbank_is_the_printed_gaussian_of_every_place():
    points, length = 3, 7
    for centre, stride, sigma in [(4.0, 2.0, 1.0), (1.3, 0.4, 0.5), (6.5, 3.0, 2.5)]:
        found = filterbank(
            torch.tensor(centre), torch.tensor(stride), torch.tensor(2 * math.log(sigma)), points, 7
        )
        for u in range(1, points + 1):
            expected = torch.tensor(_row(centre, stride, sigma, u, points, length))
            torch.testing.assert_close(found[u - 1], expected, rtol=1e-4, atol=1e-6)


def test_filterbank_far_outside_the_frame_still_sums_to_one_and_has_a_gradient():
    centre = torch.tensor(-500.0, requires_grad=True)
    rows = filterbank(centre, torch.tensor(1.0), torch.tensor(-4.0), 4, 16)
    torch.testing.assert_close(rows.sum(1), torch.ones(4))
    rows[0, 3].backward()
    assert torch.isfinite(centre.grad)


def test_windows_of_zeros_span_the_frame_with_unit_gain():
    at = window(torch.zeros(1, 1, 5), 4, 10, 16)
    places = torch.arange(1, 17, dtype=torch.float32)
    middles = at.columns_bnvw[0, 0] @ places
    # Half a stride of (16 - 1) / 3 = 5 about 8.5, the middle of 16; the outer ones meet the edge.
    torch.testing.assert_close(middles[1:3], torch.tensor([6.0, 11.0]), rtol=1e-3, atol=1e-3)
    assert middles[0] == pytest.approx(1.6, abs=0.3)
    rows = at.rows_bnuh[0, 0] @ places[:10]
    assert rows[1:3].mean() == pytest.approx(5.5, abs=1e-3)  # the stride is the longer side's
    assert at.gain_bn.item() == 1


def test_read_is_the_triple_sum_of_filters_and_pixels_times_the_gain():
    b, n, c, h, w, k = 2, 3, 2, 5, 6, 3
    video, parameters = _random(b, n, c, h, w), _random(b, n, 5, seed=1) / 3
    at = window(parameters, k, h, w)
    found = read(video, at)
    for i in range(b):
        for frame in range(n):
            column, row, log_variance, log_stride, log_gain = parameters[i, frame].tolist()
            stride = (max(h, w) - 1) / (k - 1) * math.exp(log_stride)
            sigma = math.exp(log_variance / 2)
            gx, gy = (w + 1) / 2 * (column + 1), (h + 1) / 2 * (row + 1)
            for u in range(k):
                fy = _row(gy, stride, sigma, u + 1, k, h)
                for v in range(k):
                    fx = _row(gx, stride, sigma, v + 1, k, w)
                    for channel in range(c):
                        picture = video[i, frame, channel].tolist()
                        seen = sum(
                            fy[y] * picture[y][x] * fx[x] for y in range(h) for x in range(w)
                        )
                        expected = pytest.approx(math.exp(log_gain) * seen, rel=1e-3, abs=1e-5)
                        assert found[i, frame, channel, u, v].item() == expected


def test_window_of_unit_stride_over_the_whole_frame_reads_and_writes_the_picture():
    parameters = torch.tensor([0, 0, -8.0, 0, math.log(2)]).expand(1, 2, 5)
    at = window(parameters, 12, 12, 12)  # 12 points of 12: the stride is 1
    video = _random(1, 2, 3, 12, 12)
    torch.testing.assert_close(read(video, at), 2 * video, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(write(video, at), video / 2, rtol=1e-4, atol=1e-4)


def test_write_is_the_transpose_of_read_but_for_the_gain():
    at = window(_random(2, 3, 5), 4, 8, 9)
    video, patch = _random(2, 3, 1, 8, 9, seed=1), _random(2, 3, 1, 4, 4, seed=2)
    gains = at.gain_bn[:, :, None, None, None]
    seen = (read(video, at) / gains * patch).sum()
    laid = (write(patch, at) * gains * video).sum()
    torch.testing.assert_close(seen, laid)


def test_cuboid_reads_and_writes_through_three_filterbanks():
    at = cuboid(_random(2, 8), 4, 6, 8, 9)
    assert isinstance(at, Cuboid)
    video, patch = _random(2, 6, 2, 8, 9, seed=1), _random(2, 4, 2, 4, 4, seed=2)
    filters = (at.times_bkn, at.rows_buh, at.columns_bvw)
    seen = torch.einsum("bkn,buh,bvw,bnchw->bkcuv", *filters, video) * at.gain_b.view(2, 1, 1, 1, 1)
    torch.testing.assert_close(read_cuboid(video, at), seen, rtol=1e-4, atol=1e-5)
    laid = torch.einsum("bkn,buh,bvw,bkcuv->bnchw", *filters, patch) / at.gain_b.view(2, 1, 1, 1, 1)
    torch.testing.assert_close(write_cuboid(patch, at), laid, rtol=1e-4, atol=1e-5)


def test_cuboid_of_zeros_spans_the_video():
    at = cuboid(torch.zeros(1, 8), 5, 9, 16, 16)
    middles = at.times_bkn[0] @ torch.arange(1, 10, dtype=torch.float32)
    torch.testing.assert_close(middles[1:4], torch.tensor([3.0, 5, 7]), rtol=1e-2, atol=1e-2)


def test_windows_are_computed_in_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        at = window(_random(1, 2, 5).bfloat16(), 4, 16, 16)
    assert isinstance(at, Window)
    assert {each.dtype for each in at} == {torch.float32}
