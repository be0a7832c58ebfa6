"""Encoders: shapes, any band count, wavelengths in place of band numbers."""

import pytest
import torch
from torch import nn

from hsssl.encoders import ENCODERS, PlainEncoder, build_encoder
from hsssl.encoders.transformer import group_bands, group_wavelengths
from hsssl.encoders.wavelength import SpectralBasis, wavelength_position

AVIRIS = torch.linspace(400, 2500, 200)
OTHER = torch.linspace(410, 2450, 204)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("patch_size", [1, 5])
def test_shapes_and_any_sensor(name, patch_size):
    encoder = build_encoder(name, patch_size=patch_size)
    for wavelengths in (AVIRIS, OTHER, torch.tensor([490.0, 560.0, 665.0, 842.0])):
        x = torch.randn(3, len(wavelengths), patch_size, patch_size)
        tokens = encoder.forward_features(x, wavelengths)
        assert tokens.ndim == 3
        assert tokens.shape[::2] == (3, encoder.embed_dim)
        out = encoder(x, wavelengths)
        assert out.shape == (3, encoder.embed_dim)
        torch.testing.assert_close(out, tokens.mean(1))


@pytest.mark.parametrize("name", ENCODERS)
def test_gradients_reach_every_weight(name):
    encoder = build_encoder(name, patch_size=3)
    encoder(torch.randn(4, 200, 3, 3), AVIRIS).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_wavelengths_matter(name):
    torch.manual_seed(0)
    encoder = build_encoder(name, patch_size=1)
    x = torch.randn(2, 200, 1, 1)
    assert (encoder(x, AVIRIS) - encoder(x, AVIRIS.flip(0))).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["spectral_spatial_vit", "spectral_transformer"])
@pytest.mark.parametrize("patch_size", [3, 5])
def test_tokens_are_projected_values_at_their_places(name, patch_size):
    torch.manual_seed(0)
    encoder = build_encoder(name, patch_size=patch_size)
    x = torch.randn(3, 37, patch_size, patch_size)
    values, position = encoder.tokenize(x, AVIRIS[:37])
    assert values.shape[2] == encoder.token_size
    expected = encoder.project(values) + position
    torch.testing.assert_close(encoder.embed(x, AVIRIS[:37]), expected, rtol=1e-5, atol=1e-5)
    visible = torch.rand(expected.shape[:2]).argsort(1)[:, :2]
    seen = expected.gather(1, visible.unsqueeze(2).expand(-1, -1, encoder.embed_dim))
    torch.testing.assert_close(encoder.embed(x, AVIRIS[:37], visible), seen, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["spectral_spatial_vit", "spectral_transformer"])
def test_weights_made_from_wavelengths_serve_every_sensor(name):
    torch.manual_seed(0)
    encoder = build_encoder(name, patch_size=3, wavelength_weights=True)
    for wavelengths in (AVIRIS, OTHER, torch.tensor([490.0, 560.0, 665.0, 842.0])):
        x = torch.randn(2, len(wavelengths), 3, 3)
        assert encoder(x, wavelengths).shape == (2, encoder.embed_dim)
    encoder(torch.randn(4, 200, 3, 3), AVIRIS).square().sum().backward()
    learned = [p for p in encoder.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learned)
    # two bands of one group may be swapped with their wavelengths, and not without
    x, order = torch.randn(2, 200, 3, 3), torch.arange(200)
    order[[0, 1]] = order[[1, 0]]
    right = encoder(x, AVIRIS)
    torch.testing.assert_close(encoder(x[:, order], AVIRIS[order]), right, rtol=1e-4, atol=1e-4)
    assert (encoder(x[:, order], AVIRIS) - right).abs().max() > 1e-4


def test_spectral_spatial_does_not_depend_on_the_order_of_bands():
    torch.manual_seed(0)
    encoder = build_encoder("spectral_spatial")
    x, order = torch.randn(2, 200, 1, 1), torch.randperm(200)
    torch.testing.assert_close(encoder(x, AVIRIS), encoder(x[:, order], AVIRIS[order]))


def test_spectral_spatial_reads_a_smooth_spectrum_alike_from_two_sensors():
    torch.manual_seed(0)
    encoder = build_encoder("spectral_spatial")

    def spectrum(wavelengths):
        return torch.sin(wavelengths / 200).view(1, -1, 1, 1)

    fine, coarse = encoder(spectrum(AVIRIS), AVIRIS), encoder(spectrum(OTHER), OTHER)
    assert (fine - coarse).norm() < 0.05 * fine.norm()


def test_basis_keeps_a_constant_and_fades_outside_the_sensor():
    basis = SpectralBasis(64)
    matrix = basis(torch.linspace(400, 1000, 100))
    flat = torch.ones(100) @ matrix
    inside = (basis.centres > 420) & (basis.centres < 980)
    assert (flat[inside] > 0.95).all()
    assert flat[basis.centres > 1200].max() < 1e-3


def test_positions_tell_bands_apart():
    position = wavelength_position(torch.tensor([500.0, 510.0, 2000.0]), 64)
    assert position.shape == (3, 64)
    assert torch.cdist(position, position).masked_fill(torch.eye(3).bool(), 9).min() > 0.5
    with pytest.raises(ValueError, match="even"):
        wavelength_position(torch.tensor([500.0]), 63)


def test_groups_take_any_band_count():
    x = torch.arange(1.0, 8.0).view(1, 7, 1, 1)
    groups = group_bands(x, 3)
    assert groups.shape == (1, 3, 3, 1, 1)
    assert groups.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 0]
    assert group_wavelengths(torch.arange(1.0, 8.0), 3).tolist() == [2, 5, 7]


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match="did you mean spectral_spatial"):
        build_encoder("spectral_spatail")
    with pytest.raises(ValueError, match="depht"):
        build_encoder("spectral_spatial", depht=3)
    with pytest.raises(ValueError, match="divide by heads"):
        build_encoder("spectral_transformer", dim=10, heads=3)
    with pytest.raises(ValueError, match="patches must be 1 x 1"):
        build_encoder("spectral_transformer")(torch.zeros(1, 8, 3, 3), torch.arange(400.0, 408.0))


def test_any_module_serves_as_encoder():
    module = nn.Sequential(nn.Flatten(), nn.Linear(18, 5))
    plain = PlainEncoder(module, bands=2, patch_size=3)
    x = torch.randn(4, 2, 3, 3)
    assert plain.embed_dim == 5
    assert torch.equal(plain(x, torch.zeros(2)), module(x))
    assert plain.forward_features(x, torch.zeros(2)).shape == (4, 1, 5)
    with pytest.raises(ValueError, match="does not take patches"):
        PlainEncoder(module, bands=3, patch_size=3)
    with pytest.raises(ValueError, match=r"must return \(B, D\)"):
        PlainEncoder(nn.Identity(), bands=3, patch_size=3)
