"""The autoencoder against counts and sums by hand; the mixture has tests of its own."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from models.vgan_autoencoder import VganAutoencoderConfig


def _learner(**fields):
    torch.manual_seed(0)
    return VganAutoencoderConfig(**({"width": 2, "latent": 5, "components": 3} | fields)).build()


def _clips(count, seed=1):
    return torch.rand(count, 3, 32, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _noise(learner, count, seed=2):
    return learner.noise(count, torch.Generator().manual_seed(seed))


def test_parameters_at_paper_width_are_those_of_d_with_a_code_and_of_g():
    networks = VganAutoencoderConfig().build().autoencoder
    count = {
        name: sum(p.numel() for p in net.parameters()) for name, net in networks._modules.items()
    }
    # D's 11,057,858, with 100 outputs for 2: 98 more filters of 512 x 2 x 4 x 4 and their biases.
    assert count == {"encoder": 11_057_858 + 98 * (512 * 32 + 1), "decoder": 16_245_383}


def test_encoder_has_the_layers_of_figure_1_in_reverse_and_ends_in_a_code():
    learner, shapes = _learner(width=64, latent=100), []
    for layer in learner.autoencoder.encoder.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        code = learner.eval().code(_clips(2))
    hidden = [(64, 16, 32, 32), (128, 8, 16, 16), (256, 4, 8, 8), (512, 2, 4, 4)]
    assert shapes == [*hidden, (100, 1, 1, 1)]
    assert code.shape == (2, 100)


def test_loss_is_the_mean_squared_error_of_all_pixels():
    learner = _learner().train()
    twin, clips = copy.deepcopy(learner), _clips(3)
    loss, metrics = learner.loss("autoencoder", clips, _noise(learner, 3))
    with torch.no_grad():
        made = twin.autoencoder.decoder(twin.autoencoder.encoder(clips))["sample"]
    differences = made.double().numpy() - clips.double().numpy()
    expected = np.square(differences).sum() / (3 * 3 * 32 * 64 * 64)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert list(metrics) == ["loss"]
    loss.backward()
    assert all(p.grad is not None for p in learner.parameters())


def test_loss_of_training_steps_moves_the_normal_that_samples_come_from():
    learner = _learner().train()
    mean = learner.autoencoder.encoder(_clips(4)).detach().mean(0)
    learner = _learner().train()
    learner.loss("autoencoder", _clips(4), _noise(learner, 4))
    torch.testing.assert_close(learner.mixture.mean_kd[0], 0.1 * mean)


def test_sample_decodes_the_mixtures_draw_and_shows_reconstructions():
    learner = _learner().train()
    learner.fit(torch.randn(40, 5, generator=torch.Generator().manual_seed(8)), seed=0)
    before = copy.deepcopy(learner.state_dict())
    clips, noise = _clips(2), _noise(learner, 2)
    parts = learner.sample(noise, clips)
    assert learner.autoencoder.training
    assert all(torch.equal(before[k], v) for k, v in learner.state_dict().items())
    assert list(parts) == [
        "sample", "foreground", "mask", "background", "real", "reconstruction",
    ]  # fmt: skip
    assert {part.shape for part in parts.values()} == {(2, 3, 32, 64, 64)}
    learner.eval()
    with torch.no_grad():
        decoded = learner.autoencoder.decoder(learner.mixture.draw(noise))["sample"]
        again = learner.autoencoder.decoder(learner.code(clips))["sample"]
    torch.testing.assert_close(parts["sample"], decoded)
    torch.testing.assert_close(parts["reconstruction"], again)
    assert torch.equal(parts["real"], clips)
    alone = learner.sample(noise[1:])
    assert list(alone) == ["sample", "foreground", "mask", "background"]
    torch.testing.assert_close(alone["sample"], decoded[1:], atol=1e-5, rtol=1e-5)


def test_autoencoder_after_forty_steps_tells_clips_apart():
    learner = _learner(width=4).train()
    grey = torch.linspace(-0.8, 0.8, 4).view(4, 1, 1, 1, 1).expand(4, 3, 32, 64, 64)
    optimizer = torch.optim.Adam(learner.autoencoder.parameters(), lr=3e-3, betas=(0.5, 0.999))
    for _ in range(40):
        loss, _metrics = learner.loss("autoencoder", grey, _noise(learner, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * grey.var().item()


@pytest.mark.parametrize("field", ["width", "latent", "components"])
def test_config_out_of_range_names_field_and_value(field):
    with pytest.raises(ValueError, match=f"{field}=0: must be"):
        VganAutoencoderConfig(**{field: 0})
