"""What `python -m hsssl_kernels.tune` times for self-expression, and the tiles it tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from hsssl_kernels.self_expression.op import express, express_grad
from hsssl_kernels.self_expression.top import top
from hsssl_kernels.tile import Tile

__all__ = ["express_calls", "express_candidates"]

_NEIGHBOURS = 50


def express_calls(kernel: str, rows: int, columns: int, dtype: torch.dtype) -> Callable[[str], Tensor]:
    """Return "express_fwd", "express_bwd" or "express_top" on rows that express each other, by backend."""
    g = torch.Generator().manual_seed(0)
    query, key, x, upstream = (
        torch.randn(rows, columns, generator=g).mul(columns**-0.5).to("cuda", dtype) for _ in range(4)
    )
    own, threshold = torch.arange(rows, device="cuda"), torch.tensor(0.1, device="cuda")
    weight = torch.ones(2, rows, device="cuda")

    def call(backend: str) -> Tensor:
        if kernel == "express_top":
            return top(query, key, threshold, own, _NEIGHBOURS, backend)[1]  # type: ignore[no-any-return]
        if kernel == "express_fwd":
            return express(query, key, x, threshold, own, backend)[0]  # type: ignore[no-any-return]
        gradients = express_grad(query, key, x, threshold, own, upstream.float(), weight, False, backend)
        return torch.cat(gradients[:2])

    return call


def express_candidates(kernel: str, size: int) -> Iterator[Tile]:
    """Yield tiles to try: rows, columns, chunk of D, output columns."""
    blocks, chunks = ((64, 128), (32, 64)) if size == 2 else ((32, 64), (32,))
    for m, n, d, warps, stages in product(blocks, (32, 64, 128), chunks, (4, 8), (1, 2, 3)):
        if kernel == "express_top":
            if n >= 64:  # it keeps up to 64 neighbours
                yield Tile(m, n, d, 0, warps, stages)
        else:
            yield from (Tile(m, n, d, o, warps, stages) for o in (64, 128))
