"""What a view may differ in: the strengths of all augmentations of `spectral_views`, in one frozen record."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

__all__ = ["ViewSpec"]


@dataclass(frozen=True)
class ViewSpec:
    """Strengths of the band-aware augmentations; the defaults turn every one of them on.

    Gains act on the raw numbers, as illumination does; offsets and noise are in units of each
    band's standard deviation (of ``1 / scale`` in `spectral_views`). Every strength of 0 turns
    that augmentation off.

    Parameters
    ----------
    flip : float
        Probability of a mirror image, for rows and for columns each.
    turn : bool
        Turn by 0, 90, 180 or 270 degrees with equal chance.
    jitter : int
        Largest shift of the centre in pixels, uniform over the square; two views of a sample then
        lie up to twice as far apart. A neighbour is a positive; an invalid pixel is none, so that a shift
        onto one is not made.
    gain : float
        Standard deviation of an independent relative gain of each band.
    offset : float
        Standard deviation of an independent offset of each band, in band standard deviations.
    illumination : float
        Standard deviation of a smooth relative gain over the spectrum: a constant and the first
        three cosines over the bands.
    band_drop : float
        Probability that a band is set to 0 (its mean), for each band by itself.
    block_drop : float
        Probability that one contiguous block of bands is set to 0.
    block_size : float
        Largest share of the bands in that block; its length is uniform from one band to this.
    noise : float
        Standard deviation of white noise in every value, in band standard deviations.
    smooth : float
        Probability of smoothing the spectrum by (1, 2, 1) / 4 over neighbouring bands.
    cutout : float
        Probability that a square of pixels is set to 0; never the whole patch, and never the
        centre pixel.
    cutout_size : float
        Largest side of that square as a share of the patch's side.

    Raises
    ------
    ValueError
        If a probability or share lies outside 0 ... 1, or a strength is negative or not finite.
    TypeError
        If a strength is not a number, or ``turn`` not a bool.
    """

    flip: float = 0.5
    turn: bool = True
    jitter: int = 2
    gain: float = 0.02
    offset: float = 0.05
    illumination: float = 0.05
    band_drop: float = 0.05
    block_drop: float = 0.5
    block_size: float = 0.25
    noise: float = 0.1
    smooth: float = 0.2
    cutout: float = 0.3
    cutout_size: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool if field.name == "turn" else (int, float)):
                kind = "True or False" if field.name == "turn" else "a number"
                raise TypeError(f"ViewSpec: `{field.name}` must be {kind}, got {value!r}")
        for name in ("flip", "band_drop", "block_drop", "block_size", "smooth", "cutout", "cutout_size"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"ViewSpec: `{name}` must lie in 0 ... 1, got {value}; 0 turns it off")
        for name in ("jitter", "gain", "offset", "illumination", "noise"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"ViewSpec: `{name}` must be finite and not negative, got {value}; 0 turns it off"
                )
        if self.jitter != int(self.jitter) or self.jitter >= 2**30:
            raise ValueError(
                f"ViewSpec: `jitter` must be a whole number of pixels below 2^30, got {self.jitter}"
            )

    def strengths(self) -> list[float]:
        """Return all strengths in the order of the parameters, as numbers."""
        return [float(getattr(self, f.name)) for f in fields(self)]

    @classmethod
    def of(cls, strengths: list[float]) -> ViewSpec:
        """Return the specification of these `strengths`."""
        return cls(*(type(f.default)(x) for f, x in zip(fields(cls), strengths, strict=True)))  # type: ignore[misc]

    @classmethod
    def none(cls) -> ViewSpec:
        """Return the specification that changes nothing: both views are the plain patch."""
        return cls(**{f.name: type(f.default)(0) for f in fields(cls)})  # type: ignore[misc]
