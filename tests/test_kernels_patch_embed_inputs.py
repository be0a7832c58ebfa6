"""What `spectral_patch_embed` refuses, and weights made from wavelengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl_kernels import WavelengthWeights, group_weights, spectral_patch_embed

X = torch.randn(2, 12, 6, 6)  # 3 groups of 4 bands at 4 places of 3 x 3 pixels
CUBE = torch.randn(8, 7, 12)
WEIGHT = torch.randn(5, 36)
CENTRES = torch.tensor([[0, 0], [7, 6]])
NORM = (torch.ones(5), torch.zeros(5), 1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X.numpy()}, TypeError, r"`x` must be a tensor, got ndarray; convert it"),
        ({"x": X.bool()}, TypeError, r"`x` must hold integers or floats, got torch.bool; cast it first"),
        ({"x": X[0]}, ValueError, r"`x` must be \(B, C, H, W\), .* got \(12, 6, 6\); pass `centres` and"),
        ({"x": X[:, :0]}, ValueError, r"at least one pixel and one band, got \(2, 0, 6, 6\)"),
        ({"patch": 0}, ValueError, r"`patch` must be a whole number from 1, got 0"),
        ({"group": 2.0}, ValueError, r"`group` must be a whole number from 1, got 2.0"),
        ({"patch": 4}, ValueError, r"`patch` must divide the 6 x 6 pixels of a sample, got 4; pad or crop"),
        ({"patch": 12}, ValueError, r"`patch` must divide the 6 x 6 pixels of a sample, got 12"),
        (
            {"weight": WEIGHT[:, 1:]},
            ValueError,
            r"`weight` must be \(D, K\)=\(5, 36\) or \(G, D, K\)=\(3, 5, 36\), got \(5, 35\)",
        ),
        ({"weight": WEIGHT.expand(2, 5, 36)}, ValueError, r"`weight` must be .*, got \(2, 5, 36\)"),
        ({"weight": WEIGHT[0]}, ValueError, r"`weight` must be \(D, K\) or \(G, D, K\), got \(36,\)"),
        ({"weight": WEIGHT.long()}, TypeError, r"`weight` must be floating point, got torch.int64"),
        ({"weight": WEIGHT.to("meta")}, ValueError, r"`weight` must be on cpu as `x` is, got meta; move"),
        (
            {"bias": torch.ones(4)},
            ValueError,
            r"`bias` must be \(D,\)=\(5,\) or \(G, D\)=\(3, 5\), got \(4,\)",
        ),
        ({"bias": [0.0] * 5}, TypeError, r"`bias` must be a tensor, got list"),
        ({"position": torch.ones(3, 5)}, ValueError, r"`position` must be \(S, D\)=\(4, 5\), got \(3, 5\)"),
        (
            {"wavelengths_embedding": torch.ones(12, 5)},
            ValueError,
            r"`wavelengths_embedding` must be \(G, D\)=\(3, 5\), got \(12, 5\)",
        ),
        ({"mean": torch.ones(11)}, ValueError, r"`mean` must be \(C,\)=\(12,\), got \(11,\)"),
        ({"scale": torch.ones(12, 1)}, ValueError, r"`scale` must be \(C,\)=\(12,\), got \(12, 1\)"),
        ({"scale": torch.ones(12).long()}, TypeError, r"`scale` must be floating point, got torch.int64"),
        (
            {"mean": torch.ones(12, requires_grad=True)},
            ValueError,
            r"`mean` is a constant and gets no gradient; pass mean.detach\(\)",
        ),
        (
            {"visible": torch.tensor([[0], [12]])},
            ValueError,
            r"`visible` must lie in 0 ... 11 for 3 groups of 4 tokens, got 0 ... 12",
        ),
        (
            {"visible": torch.tensor([[0], [-1]])},
            ValueError,
            r"`visible` must lie in 0 ... 11 .*, got -1 ... 0",
        ),
        (
            {"visible": torch.tensor([[0]])},
            ValueError,
            r"`visible` must be int64 \(2, V\) with V >= 1, got torch.int64 \(1, 1\)",
        ),
        (
            {"visible": torch.ones(2, 12).bool()},
            ValueError,
            r"`visible` must be int64 .*, got torch.bool \(2, 12\)",
        ),
        ({"norm": NORM[:2]}, ValueError, r"`norm` must be \(weight, bias, eps\) with eps above 0"),
        ({"norm": (*NORM[:2], 0.0)}, ValueError, r"`norm` must be \(weight, bias, eps\) with eps above 0"),
        (
            {"norm": (torch.ones(4), *NORM[1:])},
            ValueError,
            r"`norm weight` must be \(D,\)=\(5,\), got \(4,\)",
        ),
        ({"centres": CENTRES}, ValueError, r"`centres` and `window` go together"),
        ({"window": 3}, ValueError, r"`centres` and `window` go together"),
        (
            {"centres": CENTRES, "window": 3},
            ValueError,
            r"`x` must be a cube \(rows, cols, bands\), got \(2, 12, 6, 6\)",
        ),
        (
            {"x": CUBE, "centres": CENTRES, "window": 9},
            ValueError,
            r"`window` must lie in 1 ... 7 for a scene of 8 x 7 pixels, got 9",
        ),
        ({"x": CUBE, "centres": CENTRES, "window": 4}, ValueError, r"`patch` must divide the 4 x 4 pixels"),
        (
            {"x": CUBE, "centres": CENTRES + 1, "window": 6},
            ValueError,
            r"a centre lies outside the scene of 8 x 7 pixels",
        ),
        (
            {"x": CUBE, "centres": CENTRES.float(), "window": 6},
            ValueError,
            r"`centres` must be int64 \(B, 2\), got torch.float32 \(2, 2\)",
        ),
        (
            {"x": CUBE.clone().requires_grad_(), "centres": CENTRES, "window": 6},
            ValueError,
            r"a cube is data and gets no gradient; pass x.detach\(\)",
        ),
        ({"backend": "numpy"}, ValueError, r'`backend` must be "auto", "triton" or "torch"'),
        ({"backend": "triton", "weight": WEIGHT.double()}, (TypeError, ValueError), r'`backend="triton"`'),
    ],
)
def test_wrong_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    right: dict[str, Any] = {"x": X, "weight": WEIGHT, "patch": 3, "group": 4}
    with pytest.raises(error, match="spectral_patch_embed: .*" + message):
        spectral_patch_embed(**right | change)


def test_the_right_input_passes() -> None:
    named: dict[str, Any] = {"patch": 3, "group": 4, "norm": NORM, "mean": torch.ones(12)}
    assert spectral_patch_embed(X, WEIGHT, **named).shape == (2, 12, 5)
    assert spectral_patch_embed(CUBE, WEIGHT, centres=CENTRES, window=6, **named).shape == (2, 12, 5)


BANDS = torch.linspace(400.0, 2400.0, 14)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("known", [True, False])
def test_order_of_bands_in_a_group_does_not_matter(depth: int, known: bool) -> None:
    torch.manual_seed(0)
    weights = WavelengthWeights(6, 3, 5, hidden=16, depth=depth)
    x, fwhm = torch.randn(2, 14, 3, 6), torch.linspace(5.0, 20.0, 14) if known else None
    # groups 0 ... 4, 5 ... 9 and 10 ... 13, each shuffled
    order = torch.cat([5 * i + torch.randperm(n) for i, n in enumerate((5, 5, 4))])
    assert (order != torch.arange(14)).any()
    moved = None if fwhm is None else fwhm[order]
    here = spectral_patch_embed(x, *weights(BANDS, fwhm), patch=3, group=5)
    there = spectral_patch_embed(x[:, order], *weights(BANDS[order], moved), patch=3, group=5)
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)
    wrong = spectral_patch_embed(x[:, order], *weights(BANDS, fwhm), patch=3, group=5)
    assert (here - wrong).abs().max() > 1e-2


@settings(max_examples=20, deadline=None)
@given(bands=st.integers(1, 12), group=st.integers(1, 5), patch=st.integers(1, 3))
def test_grouped_weights_are_sums_over_bands(bands: int, group: int, patch: int) -> None:
    g = torch.Generator().manual_seed(bands)
    per_band = torch.randn(bands, patch**2, 4, generator=g, dtype=torch.float64)
    x = torch.randn(2, bands, patch, patch, generator=g, dtype=torch.float64)
    tokens = spectral_patch_embed(x, group_weights(per_band, group), patch=patch, group=group)
    each = torch.einsum("bcp,cpd->bcd", x.flatten(2), per_band)
    sums = torch.stack([part.sum(1) for part in each.split(group, 1)], 1)
    torch.testing.assert_close(tokens, sums)


def test_one_module_serves_every_sensor_and_learns() -> None:
    torch.manual_seed(0)
    weights = WavelengthWeights(32, 3, 10)
    for bands in (4, 103, 224):
        weight, bias = weights(torch.linspace(400, 2500, bands), torch.full((bands,), 10.0))
        assert weight.shape == (-(-bands // 10), 32, 90)
        assert bias.shape == (32,)
    tokens = spectral_patch_embed(
        torch.randn(64, 200, 3, 3), *weights(torch.linspace(400, 2500, 200)), patch=3, group=10
    )
    assert 0.7 < tokens.std() < 1.4
    spectral_patch_embed(
        torch.randn(4, 20, 3, 3), *weights(BANDS.repeat(2)[:20]), patch=3, group=10
    ).square().sum().backward()
    missing = {name for name, p in weights.named_parameters() if p.grad is None}
    assert missing == {"width.weight", "width.bias"}


def test_wavelengths_and_widths_matter() -> None:
    torch.manual_seed(0)
    weights = WavelengthWeights(8, 1, 2, hidden=32)
    base = weights(BANDS, torch.full((14,), 10.0))[0]
    for other in (
        weights(BANDS + 20, torch.full((14,), 10.0)),
        weights(BANDS, torch.full((14,), 50.0)),
        weights(BANDS),
    ):
        assert (other[0] - base).abs().max() > 0.02


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: WavelengthWeights(4, 1, 2)(BANDS, BANDS[1:]),
            ValueError,
            r"`fwhm` must be \(14,\) as `wavelengths` is, got \(13,\)",
        ),
        (
            lambda: WavelengthWeights(4, 1, 2)(BANDS.view(2, 7)),
            ValueError,
            r"`wavelengths` must be \(C,\) with C >= 1, got \(2, 7\)",
        ),
        (lambda: WavelengthWeights(4, 1, 2)(BANDS[:0]), ValueError, r"C >= 1, got \(0,\)"),
        (
            lambda: WavelengthWeights(4, 1, 2)(BANDS.long()),
            TypeError,
            r"`wavelengths` must be floating point, got torch.int64",
        ),
        (lambda: WavelengthWeights(4, 1, 2)(BANDS, 10.0), TypeError, r"`fwhm` must be a tensor, got float"),
        (
            lambda: WavelengthWeights(4, 1, 2)(BANDS, 0 * BANDS),
            ValueError,
            r"`fwhm` must be above 0 nm, got 0",
        ),
        (lambda: WavelengthWeights(0, 1, 2), ValueError, r"`dim` must be at least 1, got 0"),
        (
            lambda: WavelengthWeights(4, 1, 2, hidden=18),
            ValueError,
            r"`hidden` must be a multiple of 4 and of heads=4, got 18",
        ),
    ],
)
def test_wrong_wavelengths_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="WavelengthWeights: .*" + message):
        make()
