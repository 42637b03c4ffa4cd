"""Which way somebody goes, on walkers whose way is known; and clips in which it cannot be said."""

from collections import Counter

import numpy as np
import pytest

from shards.direction import WAYS, direction
from shards.stabilize import ClipRejectedError


def said(clip):
    try:
        return direction(clip)
    except ClipRejectedError as error:
        return error.reason


def counted(crossing, **kwargs):
    """Of 12 clips in which somebody goes to the right, and 12 in which they go to the left."""
    right, left = Counter(), Counter()
    for seed in range(12):
        more = {"dark": (30, 60, 90)[seed % 3], "seed": seed, **kwargs}
        right[said(crossing(10, **more))] += 1
        left[said(crossing(10, **more)[:, :, ::-1])] += 1
    return right, left


@pytest.mark.parametrize("speed", [1.0, 1.5, 2.5, 4.0, 6.0])
@pytest.mark.parametrize("height", [40, 80])
def test_people_who_cross_the_picture_go_the_way_they_were_drawn(crossing, speed, height):
    right, left = counted(crossing, speed=speed, x=80 - 5 * speed, height=height)
    assert right == {WAYS[0]: 12}
    assert left == {WAYS[1]: 12}


def test_no_slow_walk_is_told_the_wrong_way_round(crossing):
    for speed in (0.3, 0.5, 0.7):
        right, left = counted(crossing, speed=speed)
        assert right[WAYS[1]] == left[WAYS[0]] == 0


def test_somebody_who_walks_on_the_spot_has_no_direction(crossing):
    assert counted(crossing, speed=0) == (Counter({"unclear_direction": 12}),) * 2


def test_picture_without_anybody_is_said_to_be_empty(crossing):
    assert counted(crossing, speed=0, x=-300) == (Counter({"nobody_moves": 12}),) * 2
    gone = crossing(10, speed=6, x=148)  # out of the picture in the middle of the clip
    assert said(gone) == "nobody_moves"


def test_camera_that_zooms_or_pans_says_nothing_of_people(crossing):
    right, left = counted(crossing, speed=0, zoom=0.01)
    assert right["unclear_direction"] + left["unclear_direction"] >= 22
    scene = np.random.default_rng(0).integers(0, 255, (30, 60), np.uint8)
    wide = np.kron(scene, np.ones((4, 4), np.uint8))
    panned = np.stack([wide[:, 3 * t : 3 * t + 160] for t in range(10)])[..., None]
    assert said(panned) == "unclear_direction"
