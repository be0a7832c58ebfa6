"""Unmixing: what a scene is made of, and how much of each is in every pixel."""

from hsssl.unmix.extraction import atgp, nfindr, spa, vca
from hsssl.unmix.learned import RULES
from hsssl.unmix.metrics import (
    abundance_rmse,
    armse,
    match_endmembers,
    reconstruction_error,
    sad,
    signal_to_reconstruction_error,
    spectral_angles,
)
from hsssl.unmix.mixture import Unmixing
from hsssl.unmix.number import hysime
from hsssl.unmix.pure_pixels import pure_pixels
from hsssl.unmix.scene import UNMIXERS, unmix
from hsssl.unmix.solvers import fcls, nnls, sunsal

__all__ = [
    "RULES",
    "UNMIXERS",
    "Unmixing",
    "abundance_rmse",
    "armse",
    "atgp",
    "fcls",
    "hysime",
    "match_endmembers",
    "nfindr",
    "nnls",
    "pure_pixels",
    "reconstruction_error",
    "sad",
    "signal_to_reconstruction_error",
    "spa",
    "spectral_angles",
    "sunsal",
    "unmix",
    "vca",
]
