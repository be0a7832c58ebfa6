"""The launch table, as `python -m hsssl_kernels.tune --write` writes it; change it there.

(kernel, architecture, bytes a value) -> (largest D, tile), in rising order of D. A tile whose
block_d is below D goes through D in chunks. The fields of a tile are those of `Tile`.
"""

from __future__ import annotations

from hsssl_kernels.tile import Tile

__all__ = ["TABLE"]

TABLE: dict[tuple[str, str, int], list[tuple[int, Tile]]] = {
    ("lse_fwd", "sm_90", 2): [
        (64, Tile(128, 128, 64, 0, 8, 3)),
        (128, Tile(128, 128, 128, 0, 8, 3)),
        (256, Tile(128, 128, 256, 0, 8, 2)),
        (1024, Tile(128, 128, 64, 0, 8, 3)),
    ],
    ("lse_bwd", "sm_90", 2): [
        (64, Tile(128, 64, 64, 64, 8, 3)),
        (128, Tile(128, 64, 128, 128, 8, 3)),
        (256, Tile(128, 64, 256, 256, 8, 2)),
        (1024, Tile(128, 64, 64, 128, 8, 2)),
    ],
    ("lse_fwd", "sm_80", 2): [
        (64, Tile(128, 128, 64, 0, 8, 3)),
        (128, Tile(128, 64, 128, 0, 8, 3)),
        (256, Tile(128, 64, 256, 0, 8, 2)),
        (1024, Tile(128, 64, 64, 0, 8, 3)),
    ],
    ("lse_bwd", "sm_80", 2): [
        (64, Tile(128, 64, 64, 64, 8, 3)),
        (128, Tile(64, 64, 128, 128, 4, 2)),
        (256, Tile(64, 64, 256, 256, 8, 2)),
        (1024, Tile(128, 64, 64, 128, 8, 3)),
    ],
    ("lse_fwd", "gfx942", 2): [
        (64, Tile(128, 64, 64, 0, 8, 2)),
        (128, Tile(128, 64, 128, 0, 8, 2)),
        (1024, Tile(128, 64, 64, 0, 8, 2)),
    ],
    ("lse_bwd", "gfx942", 2): [
        (64, Tile(64, 64, 64, 64, 4, 1)),
        (1024, Tile(128, 64, 64, 128, 8, 2)),
    ],
    ("lse_fwd", "sm_90", 4): [
        (1024, Tile(64, 64, 32, 0, 8, 2)),
    ],
    ("lse_bwd", "sm_90", 4): [
        (64, Tile(64, 32, 64, 64, 8, 2)),
        (128, Tile(64, 32, 128, 128, 8, 2)),
        (256, Tile(32, 32, 256, 256, 8, 1)),
        (1024, Tile(64, 32, 32, 128, 4, 2)),
    ],
    ("lse_fwd", "sm_80", 4): [
        (1024, Tile(64, 64, 32, 0, 8, 2)),
    ],
    ("lse_bwd", "sm_80", 4): [
        (64, Tile(32, 32, 64, 64, 4, 2)),
        (128, Tile(64, 32, 128, 128, 8, 2)),
        (256, Tile(32, 32, 256, 256, 8, 1)),
        (1024, Tile(64, 32, 32, 128, 8, 2)),
    ],
    ("lse_fwd", "gfx942", 4): [
        (1024, Tile(64, 64, 32, 0, 8, 2)),
    ],
    ("lse_bwd", "gfx942", 4): [
        (64, Tile(64, 32, 32, 64, 8, 2)),
        (1024, Tile(64, 32, 32, 128, 8, 2)),
    ],
}
