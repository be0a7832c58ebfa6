"""Time candidate tiles on the GPU at hand and rewrite the launch table: `python -m hsssl_kernels.tune`.

A candidate is compared with blocked torch first; one that is wrong, spills or does not launch is
dropped. Without `--write` the new rows are only printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from hsssl_kernels import table
from hsssl_kernels.launch import architecture
from hsssl_kernels.lse import lse, lse_grad
from hsssl_kernels.self_expression.tuning import express_calls, express_candidates
from hsssl_kernels.spectral_patch_embed.tuning import patch_embed_calls, patch_embed_candidates
from hsssl_kernels.tile import Tile

__all__ = ["candidates", "is_right", "main", "render", "tiles_to_try", "tune_entry"]

_TEMPERATURE = 0.1
# Rows of a check: whole 16s, so that what is compiled for it serves the timing, but no whole tiles.
_CHECK_ROWS = 1008
_WIDEST = 512
Key = tuple[str, str, int]
_HEADER = '''"""The launch table, as `python -m hsssl_kernels.tune --write` writes it; change it there.

(kernel, architecture, bytes a value) -> (largest D, tile), in rising order of D. A tile whose
block_d is below D goes through D in chunks. The fields of a tile are those of `Tile`.
"""

from __future__ import annotations

from hsssl_kernels.tile import Tile

__all__ = ["TABLE"]

TABLE: dict[tuple[str, str, int], list[tuple[int, Tile]]] = {
'''


def main(arguments: list[str] | None = None) -> int:
    """Tune every entry of this GPU's architecture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--rows", type=int, default=16384, help="n of the timed similarity matrix, and tokens / 4"
    )
    parser.add_argument("--write", action="store_true", help="rewrite the table in place")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("hsssl_kernels.tune: needs a CUDA or ROCm device, found none; run it there", file=sys.stderr)
        return 2
    arch = architecture(torch.empty(1, device="cuda"))
    for key, entries in table.TABLE.items():
        if key[1] == arch:
            for i in range(len(entries)):
                tiles = [tile for tile in tiles_to_try(key, i) if is_right(key, i, tile)]
                tune_entry(key, i, options.rows, tiles)
    text = render()
    if options.write:
        Path(table.__file__).write_text(text)
    print(text)
    return 0


def tiles_to_try(key: Key, i: int) -> list[Tile]:
    """Return the tile that entry ``i`` of the table has, and those to compare it with."""
    kernel, _, size = key
    largest, shipped = table.TABLE[key][i]
    return list(dict.fromkeys([shipped, *candidates(kernel, min(largest, _WIDEST), size)]))


def is_right(key: Key, i: int, tile: Tile) -> bool:
    """Return whether a tile launches in entry ``i`` of the table and computes what blocked torch does."""
    kernel, _, size = key
    largest, kept = table.TABLE[key][i]
    call = _calls(kernel, _CHECK_ROWS, min(largest, _WIDEST), _dtype(size))
    table.TABLE[key][i] = (largest, tile)
    try:
        right = call("torch")
        wrong = ((call("triton") - right).norm() / right.norm()).item()
    except Exception as failure:  # too much shared memory, or a compiler's failure: not a candidate
        print(f"{key} D<={largest} {tuple(tile)}: {str(failure)[:100]}", file=sys.stderr)
        return False
    finally:
        table.TABLE[key][i] = (largest, kept)
    if not wrong <= (1e-5 if size == 4 else 1e-2):
        print(f"{key} D<={largest} {tuple(tile)}: wrong by {wrong:.1e}, dropped", file=sys.stderr)
        return False
    return True


def tune_entry(key: Key, i: int, rows: int, tiles: Sequence[Tile]) -> list[tuple[float, Tile]]:
    """Put the fastest of ``tiles`` into entry ``i`` of the table; return all, fastest first (ms)."""
    from triton.testing import do_bench

    kernel, _, size = key
    largest, shipped = table.TABLE[key][i]
    call = _calls(kernel, rows, min(largest, _WIDEST), _dtype(size))
    timed: list[tuple[float, Tile]] = []
    for tile in tiles:
        table.TABLE[key][i] = (largest, tile)
        timed.append((float(do_bench(lambda: call("triton"), warmup=5, rep=30, return_mode="median")), tile))
    timed.sort()
    table.TABLE[key][i] = (largest, timed[0][1] if timed else shipped)
    return timed


def _dtype(size: int) -> torch.dtype:
    return torch.float32 if size == 4 else torch.bfloat16


def _calls(kernel: str, rows: int, columns: int, dtype: torch.dtype) -> Callable[[str], Tensor]:
    if kernel.startswith("patch_embed"):
        return patch_embed_calls(kernel, rows, columns, dtype)
    if kernel.startswith("express"):
        return express_calls(kernel, rows, columns, dtype)
    g = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(rows, columns, generator=g)).to("cuda", dtype)
    t = torch.tensor(_TEMPERATURE)
    classes = [torch.arange(rows, device="cuda") % 16] * 2 if kernel.endswith("classes") else []

    def forward(backend: str) -> Tensor:
        out: Tensor = lse(z, z, t, 0, 0, False, True, backend, classes)[0]
        return out

    if kernel.startswith("lse_fwd"):
        return forward
    log, ones = forward("triton"), torch.ones(rows, dtype=torch.float64, device="cuda")
    positives = [*classes, ones / (rows // 16), ones / (rows // 16)] if classes else []

    def backward(backend: str) -> Tensor:
        sides = (log, ones, log, ones)
        out: Tensor = lse_grad(z, z, t, *sides, 0, 0, False, True, backend, positives)[0]
        return out

    return backward


def candidates(kernel: str, columns: int, size: int) -> Iterator[Tile]:
    """Yield tiles to try for D = ``columns``."""
    if kernel.startswith("patch_embed"):
        yield from patch_embed_candidates(kernel, columns, size)
        return
    if kernel.startswith("express"):
        yield from express_candidates(kernel, size)
        return
    whole = max(16, 1 << (columns - 1).bit_length())
    blocks = (64, 128) if size == 2 else (32, 64)
    for m, n, warps, stages in product(blocks, blocks, (4, 8), (2, 3, 4)):
        for d in dict.fromkeys((whole, 64) if whole <= 256 else (64, 128)):
            if kernel.startswith("lse_fwd"):
                yield Tile(m, n, d, 0, warps, stages)
            else:
                yield Tile(m, n, d, whole if d == whole else min(128, whole), warps, stages)


def render() -> str:
    """Return the source of the table as it is now."""
    text = _HEADER
    for key, entries in table.TABLE.items():
        if key[1] != "interpreter":
            rows = "".join(f"        ({largest}, Tile{tuple(tile)}),\n" for largest, tile in entries)
            text += f'    ("{key[0]}", "{key[1]}", {key[2]}): [\n{rows}    ],\n'
    return text + "}\n"


if __name__ == "__main__":
    sys.exit(main())
