"""Any module from (B, C, H, W) to (B, D), a timm model for one, as an encoder of one fixed band set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PlainEncoder"]


class PlainEncoder(nn.Module):
    """Wrap a module that knows nothing of wavelengths; it serves only the bands it was made for.

    Parameters
    ----------
    module : nn.Module
        Maps (B, C, H, W) float32 to (B, D).
    bands : int
        Number C of bands it is made for.
    patch_size : int
        Side of the patches in pixels.

    Raises
    ------
    ValueError
        If the module cannot take such patches, or does not return (B, D).
    """

    def __init__(self, module: nn.Module, bands: int, patch_size: int) -> None:
        super().__init__()
        self.module = module
        was_training = module.training
        like: Any = next(module.parameters(), torch.zeros(()))
        probe = torch.zeros(2, bands, patch_size, patch_size, dtype=like.dtype, device=like.device)
        try:
            with torch.no_grad():
                out = module.eval()(probe)
        except RuntimeError as error:
            shape = tuple(probe.shape)
            raise ValueError(f"encoder: the module does not take patches {shape}: {error}") from error
        finally:
            module.train(was_training)
        if out.ndim != 2 or len(out) != 2:
            raise ValueError(f"encoder: the module must return (B, D), got {tuple(out.shape)} for B = 2")
        self.embed_dim = int(out.shape[1])

    def forward_features(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the module's output as a single token, (B, 1, D)."""
        return self.forward(x, wavelengths).unsqueeze(1)

    def forward(self, x: Tensor, wavelengths: Tensor) -> Tensor:
        """Return the module's output (B, D); ``wavelengths`` are not used."""
        out: Tensor = self.module(x)
        return out
