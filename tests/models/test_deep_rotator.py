"""Deep Rotator against counts by arithmetic, a rotation written out, and Caffe's upsampling."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.deep_rotator import CLOCKWISE, COUNTER, NONE, DeepRotatorConfig

SMALL = DeepRotatorConfig(frames=4, rotations=3, width=4, units=6)
WAYS = torch.tensor([[0, 1], [1, 0]])


def _built(seed=0, **fields):
    torch.manual_seed(seed)
    return dataclasses.replace(SMALL, **fields).build()


def _clips(count=2, frames=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, frames, 64, 64, generator=generator) * 2 - 1


def _noise(count=2):
    return torch.empty(count, 0)


def _one_hot(*places):
    return torch.eye(3)[list(places)]


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_as_many_as_in_the_code():
    with torch.device("meta"):
        rotator = DeepRotatorConfig().build().rotator
    encoder = 25 * (3 * 64 + 64 * 128 + 128 * 256) + 64 + 128 + 256
    encoder += 256 * 64 * 1024 + 1024 + 1024 * 1024 + 1024
    assert _count(rotator.encoder) == encoder
    assert _count(rotator.identity) == _count(rotator.pose) == 1024 * 512 + 512
    assert _count(rotator.turn) == 3 * 512 * 512 + 512
    assert _count(rotator.decoder) == 2 * (1024 * 1024 + 1024)
    image = 1024 * 16_384 + 16_384 + 25 * (256 * 128 + 128 * 64 + 64 * 3) + 128 + 64 + 3
    mask = 1024 * 8_192 + 8_192 + 25 * (128 * 64 + 64 * 32 + 32) + 64 + 32 + 1
    assert (_count(rotator.image), _count(rotator.mask)) == (image, mask)


def test_layers_halve_and_double_between_64_and_8():
    rotator = _built().rotator
    sizes = []
    for layer in rotator.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    parts = rotator(torch.zeros(2, 3, 64, 64), _one_hot(0, 2)[:, None])
    assert sizes[:3] == [(4, 32, 32), (8, 16, 16), (16, 8, 8)]
    assert sizes[3:6] == [(8, 16, 16), (4, 32, 32), (3, 64, 64)]
    assert sizes[6:] == [(4, 16, 16), (2, 32, 32), (1, 64, 64)]
    assert parts["image"].shape == (2, 2, 3, 64, 64)
    assert parts["mask"].shape == (2, 2, 1, 64, 64)


def test_upsampling_is_zeros_around_a_corner_and_a_convolution():
    layer = _built().rotator.image.layers[1]
    small = torch.rand(2, 16, 8, 8)
    spread = torch.zeros(2, 16, 16, 16)
    spread[:, :, ::2, ::2] = small
    kernel = layer.weight.transpose(0, 1).flip(2, 3)
    torch.testing.assert_close(layer(small), F.conv2d(spread, kernel, layer.bias, padding=2))


def test_turn_is_the_matrix_that_the_action_chooses():
    turn = _built(units=5).rotator.turn
    matrices = turn.matrices.weight.detach().view(5, 3, 5)
    pose = torch.rand(3, 5)
    turned = turn(pose, _one_hot(2, 0, 1))
    for row, action in enumerate((2, 0, 1)):
        expected = np.maximum(matrices[:, action].numpy() @ pose[row].numpy(), 0)
        np.testing.assert_allclose(turned[row].detach().numpy(), expected, rtol=1e-5)
    assert turn.matrices.weight.abs().max() <= math.sqrt(3 / 5)
    assert turn.matrices.weight.abs().max() > math.sqrt(3 / 5) * 0.9


def test_weights_begin_at_caffes_scale():
    rotator = _built(units=16, width=16).rotator
    for layer, inputs in (
        (rotator.encoder[0], 75),
        (rotator.encoder[2], 400),
        (rotator.decoder[0], 32),
        (rotator.image.layers[3], 32 * 25),
    ):
        assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(3 / inputs), rel=0.02)
        assert (layer.bias == 0).all()


def test_pose_is_turned_again_and_again_and_identity_stays():
    rotator = _built().rotator
    seen = []
    rotator.decoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    still = torch.rand(2, 3, 64, 64)
    actions = torch.stack([_one_hot(0, 0, 0), _one_hot(2, 2, 1)])
    parts = rotator(still, actions)
    codes = seen[0].view(2, 4, 12)
    code = rotator.encoder(still)
    identity, pose = rotator.identity(code), rotator.pose(code)
    torch.testing.assert_close(codes[..., :6], identity[:, None].expand(-1, 4, -1))
    none = rotator.turn(pose, _one_hot(NONE, NONE))
    torch.testing.assert_close(codes[:, 0, 6:], none)
    for t in range(3):
        pose = rotator.turn(pose, actions[:, t])
        torch.testing.assert_close(codes[:, t + 1, 6:], pose)
        image = rotator.image(rotator.decoder(torch.cat([identity, pose], 1)))
        torch.testing.assert_close(parts["image"][:, t + 1], image, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", [0, 1])
def test_loss_is_the_squared_errors_of_image_and_mask_by_hand(direction):
    learner = _built(rotations=2, direction=direction)
    clips = _clips()
    clips[:, :, :, 10:40] = 1  # a white background
    loss, metrics = learner.loss("rotator", clips, _noise(), attributes_ba=WAYS)
    ways = [CLOCKWISE, COUNTER] if direction == 0 else [COUNTER, CLOCKWISE]
    actions = _one_hot(*ways)[:, None].expand(-1, 2, -1)
    with torch.no_grad():
        parts = learner.rotator((clips[:, :, 0] + 1) / 2, actions)
    real = ((clips[:, :, :3] + 1) / 2).transpose(1, 2).double().numpy()
    image = ((parts["image"].double().numpy() - real) ** 2).sum() / 2
    there = (np.abs(real.mean(2, keepdims=True) - 1) > 8 / 255).astype(float)
    assert 0.4 < there.mean() < 0.6
    mask = ((parts["mask"].double().numpy() - there) ** 2).sum() / 2
    assert metrics["image"].item() == pytest.approx(image, rel=1e-5)
    assert metrics["mask"].item() == pytest.approx(mask, rel=1e-5)
    assert loss.item() == pytest.approx(10 * image + mask, rel=1e-5)


def test_clips_of_unknown_direction_and_frames_beyond_the_rotations_count_for_nothing():
    learner = _built(rotations=2)
    clips = _clips()
    one, _ = learner.loss("rotator", clips[:1], _noise(1), attributes_ba=WAYS[:1])
    unknown = torch.tensor([[0, 1], [-1, 0]])
    both, _ = learner.loss("rotator", clips, _noise(), attributes_ba=unknown)
    assert both.item() == pytest.approx(one.item() / 2, rel=1e-5)
    clips[:, :, 3] = 0
    again, _ = learner.loss("rotator", clips, _noise(), attributes_ba=unknown)
    assert torch.equal(again, both)


def test_black_backgrounds_are_told_from_faint_traces():
    learner = _built(background="black")
    real = torch.zeros(1, 1, 3, 64, 64)
    real[..., :8, :8] = 8 / 255
    real[..., 8:16, :8] = 9 / 255
    mask = learner.mask(real)
    assert mask.sum() == 64
    assert (mask[..., 8:16, :8] == 1).all()


def test_sample_turns_the_given_frame_as_the_attributes_say():
    learner = _built().train()
    clips = _clips()
    parts = learner.sample(_noise(), clips, attributes_ba=WAYS)
    assert list(parts) == ["sample", "real", "mask"]
    assert {part.shape for part in parts.values()} == {(2, 3, 4, 64, 64)}
    assert parts["sample"].abs().max() <= 1
    assert torch.equal(parts["real"], clips)
    stills = learner.sample(_noise(), clips[:, :, :1], attributes_ba=WAYS)
    assert "real" not in stills
    assert torch.equal(stills["sample"], parts["sample"])
    other = learner.sample(_noise(), clips, attributes_ba=1 - WAYS)["sample"]
    apart = (other - parts["sample"]).abs().amax((0, 1, 3, 4))
    assert apart[0] == 0  # the first frame is drawn without a turn
    assert (apart[1:] > 1e-4).all()
    clockwise = learner.sample(_noise(), clips)["sample"]
    assert torch.equal(clockwise[0], parts["sample"][0])
    with pytest.raises(ValueError, match="give clips"):
        learner.sample(_noise())


def test_a_direction_that_changes_changes_only_the_frames_from_then_on():
    learner = _built()
    clips = _clips()
    changing = WAYS[:, None].repeat(1, 4, 1)
    changing[:, 2:, 0] = 1 - changing[:, 2:, 0]
    one = learner.sample(_noise(), clips, attributes_ba=WAYS)["sample"]
    other = learner.sample(_noise(), clips, attributes_ba=changing)["sample"]
    apart = (one - other).abs().amax((0, 1, 3, 4))
    assert (apart[:2] == 0).all()
    assert (apart[2:] > 1e-4).all()


def test_curriculum_goes_on_with_the_weights_of_fewer_rotations():
    short, long = _built(rotations=1), _built(seed=1, rotations=3)
    long.adopt(short.state_dict())
    given = {"attributes_ba": WAYS}
    found = [each.sample(_noise(), _clips(), **given)["sample"] for each in (short, long)]
    assert torch.equal(*found)


def test_a_square_that_turns_either_way_is_learned_from_its_first_frame():
    learner = _built(units=64, width=8)
    clips = torch.full((2, 3, 4, 64, 64), 1.0)
    for t in range(4):
        for way, sign in enumerate((1, -1)):
            left = 24 + sign * 8 * t
            clips[way, :, t, 20:36, left : left + 12] = -0.6
    assert torch.equal(clips[0, :, 0], clips[1, :, 0])
    optimizer = torch.optim.Adam(learner.rotator.parameters(), lr=1e-3)
    for _ in range(120):
        loss, _ = learner.loss("rotator", clips, _noise(), attributes_ba=WAYS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for p in learner.parameters())
    made = learner.sample(_noise(), clips[:, :, :1], attributes_ba=WAYS)["sample"]
    own = (made - clips)[:, :, 1:].square().mean()
    others = (made - clips.flip(0))[:, :, 1:].square().mean()
    assert own < others / 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frames", 1),
        ("rotations", 0),
        ("rotations", 4),
        ("width", 1),
        ("units", 0),
        ("direction", -1),
        ("image_weight", 0.0),
        ("image_weight", math.inf),
    ],
)
def test_config_out_of_range_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}: must be"):
        dataclasses.replace(SMALL, **{field: value})
