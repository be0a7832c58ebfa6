"""The random stream behind views: counters, draws a sample, view and band, and noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hsssl_kernels.random import mix_bits, normals, philox
from hsssl_kernels.spectral_views.draws import draw
from hsssl_kernels.spectral_views.noise import element_noise, noise_rows, noise_table
from view_inputs import NONE


def test_philox_gives_the_published_words() -> None:
    """Known answers of philox4x32-10 from Random123's kat_vectors (version 1.14.0)."""
    for counter, key, words in (
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ):
        assert [int(w) for w in philox(key, *(torch.tensor(c) for c in counter))] == words


def test_mixed_bits_are_a_permutation_uniform_and_depend_on_every_bit() -> None:
    x = torch.arange(1 << 20, dtype=torch.int32)
    mixed = mix_bits(x.clone())
    assert len(mixed.unique()) == len(x)
    for shift in (0, 8, 16, 24):
        counts = torch.bincount((mixed >> shift & 255).long(), minlength=256).double()
        chi2 = ((counts - 4096) ** 2 / 4096).sum()
        assert 160 < chi2 < 370  # 255 degrees of freedom: five deviations either way
    for bit in range(32):
        flip = 1 << bit if bit < 31 else -(1 << 31)
        changed = mixed ^ mix_bits(x ^ flip)
        share = torch.stack([(changed >> b & 1).double().mean() for b in range(32)])
        assert (share - 0.5).abs().max() < 0.01


def test_normals_are_normal() -> None:
    low, high = normals(torch.arange(1 << 16) * 65537)
    assert torch.equal(low, high)
    z = low.double().sort().values
    assert abs(z.mean()) < 1e-6
    assert abs(z.square().mean() - 1) < 1e-6
    assert abs(z.pow(4).mean() - 3) < 0.01
    values, counts = z.unique(return_counts=True)
    middle = (counts.cumsum(0) - counts / 2) / len(z)
    assert (torch.special.ndtr(values) - middle).abs().max() < 1e-3


def test_draws_of_samples_views_and_bands_are_independent() -> None:
    drawn = draw(replace(NONE, band_drop=0.5, gain=1.0, offset=1.0), torch.arange(1000), 64, 1, 77)
    for field in (drawn.keep, drawn.gain, drawn.offset):
        x = field.double()
        x = (x - x.mean()) / x.std()
        n = x.numel()
        for y, z in (
            (x[:, :-1], x[:, 1:]),
            (x[:-1], x[1:]),
            (x[:1000], x[1000:]),
            (x[:-1, :-1], x[1:, 1:]),
        ):
            assert abs((y * z).mean()) < 5 / n**0.5
    assert abs((drawn.gain * drawn.offset).mean()) < 5 / drawn.gain.numel() ** 0.5
    assert abs(drawn.keep.double().mean() - 0.5) < 0.01


@pytest.mark.parametrize("source", ["blocked", "element"])
def test_noise_is_white_and_normal(source: str) -> None:
    if source == "element":
        e = element_noise(77, torch.arange(40), 20, 49)
    else:
        drawn = draw(replace(NONE, noise=1.0), torch.arange(40), 20, 7, 77)
        table = noise_table(20, 49, torch.device("cpu"))
        rows = noise_rows(drawn.table, 49, len(table))
        assert all(len(row.unique()) == 49 for row in rows)
        e = table[rows]
    assert e.shape == (80, 49, 20)
    limit = 5 / e.numel() ** 0.5
    assert abs(e.mean()) < limit
    assert abs(e.square().mean() - 1) < 2 * limit
    assert abs(e.pow(4).mean() - 3) < 10 * limit
    for a, b in (
        (e[:40], e[40:]),
        (e[:-1], e[1:]),
        (e[:, :-1], e[:, 1:]),
        (e[..., :-1], e[..., 1:]),
        (e[:, :-8], e[:, 8:]),
    ):
        assert abs((a * b).mean()) < limit
