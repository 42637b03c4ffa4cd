"""Regions against gradients, which know what an activation depends on; ranks against a search."""

import pytest
import torch
from torch import nn

from models.units import layers, lit, strongest
from models.vgan_classifier import VganClassifierConfig
from models.vgan_future import VganFutureConfig


def _lively(network):
    for layer in network.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            layer.weight.data.mul_(20)
    return network


def _features():
    torch.manual_seed(0)
    return _lively(VganClassifierConfig(width=2, mode="random").build().classifier.features)


def _encoder():
    torch.manual_seed(0)
    return _lively(VganFutureConfig(width=2).build().generator.encoder)


def _inputs(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _depends_on(part, inputs, unit, clip):
    """The box of inputs that the unit's strongest activation in that clip has a gradient to."""
    one = inputs[clip : clip + 1].clone().requires_grad_()
    part(one)[0, unit].max().backward()
    touched = one.grad[0].abs().amax(0).nonzero()
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in touched.unbind(1))


@pytest.mark.parametrize("layer", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("network", "shape"), [(_features, (3, 32, 64, 64)), (_encoder, (3, 64, 64))]
)
def test_region_is_what_the_activation_has_a_gradient_to(network, shape, layer):
    network, inputs = network().eval(), _inputs(3, *shape)
    part = layers(network, layer)
    found = strongest(network, [inputs], layer=layer, top=2)
    for unit, firings in list(found.items())[:4]:
        for firing in firings:
            assert firing.activation > 0
            assert firing.region == _depends_on(part, inputs, unit, firing.clip)


def test_region_of_the_third_layer_is_at_most_22_wide_and_8_apart():
    images = _inputs(40, 3, 64, 64)
    boxes = [f.region for unit in strongest(_encoder(), [images], top=40).values() for f in unit]
    rows = {(rows.start, rows.stop) for rows, _ in boxes}
    # Three layers of kernel 4, stride 2, padding 1: 4 + 2*3 + 4*3 inputs, from 8p - 7 on.
    assert rows == {(max(0, 8 * p - 7), min(64, 8 * p + 15)) for p in range(8)}


def test_strongest_ranks_the_clips_of_all_batches_as_a_search_does():
    network, clips = _features().train(), _inputs(7, 3, 32, 64, 64)
    found = strongest(network, clips.split(3), layer=2, top=5)
    assert network.training
    with torch.no_grad():
        activations = network.eval()[:5](clips).flatten(2).amax(2)
    for unit, firings in found.items():
        expected = sorted(range(7), key=lambda b, u=unit: -activations[b, u].item())[:5]
        assert [f.clip for f in firings] == expected
        values = [activations[b, unit].item() for b in expected]
        assert [f.activation for f in firings] == pytest.approx(values, rel=1e-4)
    few = strongest(network, [clips[:2]], layer=2, top=5)
    assert {len(firings) for firings in few.values()} == {2}


def test_unit_that_sums_brightness_fires_where_the_light_is():
    network = nn.Sequential(nn.Conv2d(1, 1, 4, 2, 1), nn.ReLU(), nn.Conv2d(1, 1, 4, 2, 1))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    images = torch.zeros(3, 1, 64, 64)
    images[1, 0, 40:44, 20:24] = 1
    images[2, 0, 8:10, 50:52] = 0.5
    first, second, third = strongest(network, [images], layer=2)[0]
    assert [first.clip, second.clip, third.clip] == [1, 2, 0]
    rows, columns = first.region
    assert rows.start <= 40
    assert rows.stop >= 44
    assert columns.start <= 20
    assert columns.stop >= 24


def test_units_that_stand_out_are_those_that_single_clips_fire():
    network = nn.Sequential(nn.Conv2d(2, 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 4, 2, 1))
    for layer in (network[0], network[2]):
        nn.init.zeros_(layer.bias)
        with torch.no_grad():  # each unit looks at a channel of its own
            layer.weight.copy_(torch.eye(2)[:, :, None, None].expand(2, 2, 4, 4))
    images = torch.rand(20, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    images[:, 1] = 0
    images[7, 1, 8, 8] = 0.01
    ((unit, firings),) = strongest(network, [images], layer=2, top=1, units=1).items()
    assert unit == 1
    assert firings[0].clip == 7
    assert list(strongest(network, [images], layer=2, top=1, units=9)) == [1, 0]


def test_lit_leaves_the_region_and_darkens_the_rest():
    clip = torch.full((3, 4, 8, 8), 1.0)
    out = lit(clip, (slice(1, 3), slice(0, 4), slice(2, 8)))
    inside = torch.zeros(3, 4, 8, 8, dtype=torch.bool)
    inside[:, 1:3, 0:4, 2:8] = True
    assert (out[inside] == 1).all()
    assert (out[~inside] == -0.5).all()  # brightness is (x + 1) / 2: from 1 to a quarter
    assert (clip == 1).all()


def test_layers_and_fields_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="layer=5: must be between 1 and 4"):
        strongest(_features(), [], layer=5)
    with pytest.raises(ValueError, match="MaxPool2d"):
        strongest(nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2)), [], layer=1)
