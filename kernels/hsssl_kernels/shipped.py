"""Every launch the table can make, compiled ahead of time: `python -m hsssl_kernels.shipped sm_90`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from hsssl_kernels.aot import SHARED_LIMIT, compile_ahead
from hsssl_kernels.launch import TABLE, row_block
from hsssl_kernels.tile import Tile

__all__ = ["Shipped", "main", "shipped"]

_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_ROWS = {"num_warps": 4, "enable_fp_fusion": True}


class Shipped(NamedTuple):
    """One kernel with everything its compilation depends on; ``dot`` says whether it multiplies matrices."""

    name: str
    dtype: str
    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, Any]
    dot: bool


def shipped(architecture: str) -> Iterator[Shipped]:
    """Yield every launch of the table for an architecture, and every row kernel narrow and wide."""
    for (name, arch, size), entries in TABLE.items():
        if arch == architecture:
            for largest, tile in entries:
                # the widest class is of any D to 1024, in chunks; a D that no power of two divides
                # takes other loads, so one is compiled beside each
                for columns in (min(largest, 512), min(largest, 512) - 12):
                    for dtype in [torch.float32] if size == 4 else [torch.bfloat16, torch.float16]:
                        if columns % 16 == 0 or dtype != torch.float16:
                            for unit in (True, False):
                                yield lse_launch(name, dtype, columns, tile, unit)
    for columns in (128, 1024):
        yield from _row_launches(columns)


def lse_launch(name: str, dtype: torch.dtype, columns: int, tile: Tile, unit: bool) -> Shipped:
    """Return one launch of "lse_fwd" or "lse_bwd" with self-pairs left out, the costliest form."""
    from hsssl_kernels.lse import kernel

    value = f"*{_NAMES[dtype]}"
    signature = dict.fromkeys(("n", "m", "self_offset", "span"), "i32")
    signature |= {"scale": "fp32", "x_ptr": value, "y_ptr": value}
    signature |= dict.fromkeys(("top_ptr", "total_ptr", "x_lse_ptr", "x_weight_ptr", "y_lse_ptr"), "*fp32")
    signature |= dict.fromkeys(("y_weight_ptr", "out_ptr"), "*fp32")
    constants = {"D": columns, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_D": tile.block_d}
    constants |= {"UNIT": unit, "EXCLUDE_SELF": True}
    function = kernel._lse_fwd_kernel
    if name == "lse_bwd":
        function = kernel._lse_bwd_kernel
        constants |= {"BLOCK_O": tile.block_o, "LIFT": 14 if dtype == torch.float16 else 0}
    label = f"{name} D={columns} {_NAMES[dtype]} {'unit' if unit else 'raw'} {tuple(tile)}"
    return Shipped(label, _NAMES[dtype], function, signature, constants, tile.options(), True)


def _row_launches(columns: int) -> Iterator[Shipped]:
    from hsssl_kernels.cosine_regression import kernel as cosine
    from hsssl_kernels.rows import kernel as rows
    from hsssl_kernels.sinkhorn import kernel as sinkhorn

    block_n, block_d = row_block(columns)
    by_row = {"D": columns, "BLOCK_N": block_n, "BLOCK_D": block_d}
    by_sample = {"K": columns, "BLOCK_K": block_d}
    for kernel, constants in (
        (rows._unit_rows_kernel, by_row),
        (rows._finish_rows_kernel, by_row | {"NORMALIZE": True}),
        (cosine._cosine_rows_kernel, by_row),
        (cosine._cosine_rows_grad_kernel, by_row),
        (sinkhorn._next_columns_kernel, by_sample | {"HAS_COLUMNS": True}),
        (sinkhorn._finish_kernel, by_sample | {"BLOCK_B": block_n}),
    ):
        names = [name for name in kernel.arg_names if name not in constants]
        values = ("x_ptr", "p_ptr", "t_ptr", "unit_ptr", "target_ptr", "dx_ptr", "dp_ptr", "scores_ptr")
        signature = {
            name: "*bf16" if name in values else "*fp32" if name.endswith("_ptr") else "i32" for name in names
        }
        if "scale" in signature:
            signature["scale"] = "fp32"
        yield Shipped(f"{kernel.__name__} D={columns}", "bf16", kernel, signature, constants, _ROWS, False)


def main(arguments: list[str]) -> int:
    """Compile what is shipped for the named architectures; one JSON line each."""
    for architecture in arguments or list(SHARED_LIMIT):
        for item in shipped(architecture):
            report = compile_ahead(item.kernel, item.signature, item.constants, architecture, item.options)
            line = {"architecture": architecture, "name": item.name, "dtype": item.dtype, "dot": item.dot}
            print(json.dumps(line | asdict(report)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
