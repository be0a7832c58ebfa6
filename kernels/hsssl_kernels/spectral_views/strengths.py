"""A `ViewSpec` as kernels and loops use it: chances as counts of random words, shares as counts of bands."""

from __future__ import annotations

from typing import NamedTuple

from hsssl_kernels.spectral_views.spec import ViewSpec

__all__ = ["Strengths", "strengths_of"]


class Strengths(NamedTuple):
    """A chance is the number of 32-bit words below which it happens."""

    flip: int
    turn: int
    jitter: int
    gain: float
    offset: float
    illumination: float  # of each cosine
    band_drop: int
    block_drop: int
    block: int  # most bands
    noise: float
    smooth: int
    cutout: int
    side: int  # most pixels

    @property
    def by_band(self) -> bool:
        """Whether anything differs from band to band."""
        return bool(self.gain or self.offset or self.illumination or self.band_drop or self.block_drop)


def strengths_of(spec: ViewSpec, bands: int, patch_size: int) -> Strengths:
    """Return the strengths of a specification for patches of so many bands and pixels a side."""
    block = int(spec.block_size * bands)
    side = int(spec.cutout_size * patch_size) if patch_size > 1 else 0
    return Strengths(
        flip=_chance(spec.flip),
        turn=int(spec.turn),
        jitter=int(spec.jitter),
        gain=float(spec.gain),
        offset=float(spec.offset),
        illumination=0.5 * spec.illumination,
        band_drop=_chance(spec.band_drop),
        block_drop=_chance(spec.block_drop) if block else 0,
        block=block,
        noise=float(spec.noise),
        smooth=_chance(spec.smooth) if bands > 1 else 0,  # a band alone is smooth
        cutout=_chance(spec.cutout) if side else 0,
        side=side,
    )


def _chance(probability: float) -> int:
    return round(probability * 2**32)
