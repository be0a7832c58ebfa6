"""Every launch the table can make, compiled ahead of time: `python -m hsssl_kernels.shipped sm_90`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from typing import Any, NamedTuple

import torch

from hsssl_kernels.aot import SHARED_LIMIT, compile_ahead
from hsssl_kernels.dispatch import MAX_COLUMNS
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
    yield from patch_embed_launches(architecture)
    yield from express_launches(architecture)
    for (name, arch, size), entries in TABLE.items():
        if arch == architecture and name.startswith("lse"):
            for largest, tile in entries:
                for columns, kind, unit in _lse_kinds(name, largest):
                    for dtype in [torch.float32] if size == 4 else [torch.bfloat16, torch.float16]:
                        if columns % 16 == 0 or dtype != torch.float16:
                            yield lse_launch(name, dtype, columns, tile, unit, kind)
    for columns in (128, 1024):
        yield from _row_launches(columns)
    yield from _unmixing_launches()
    for bands, line, patch_size, raw, written, full in (
        (200, 200, 11, "i16", "fp32", True),
        (200, 200, 11, "i16", "bf16", True),
        (103, 104, 11, "i16", "bf16", True),
        (103, 103, 9, "u16", "fp16", True),
        (224, 224, 64, "fp32", "bf16", True),
        (13, 13, 1, "i16", "fp32", False),
    ):
        yield from _view_launches(bands, line, patch_size, raw, written, full)


def _lse_kinds(name: str, largest: int) -> Iterator[tuple[int, str, bool]]:
    """Yield widths, what is left out of a row (its pair, itself, nothing) and whether rows have norm 1.

    A D that no power of two divides takes other loads, so one is compiled beside each. What costs less than
    leaving pairs out is compiled for the widest tile alone. With classes, a row leaves itself out.
    """
    odd = largest - 12
    if name.endswith("classes"):
        yield from ((columns, "classes", False) for columns in (52, 128, odd))
        return
    yield from ((largest, "pair", True), (largest, "pair", False), (odd, "self", True), (odd, "pair", False))
    if largest == MAX_COLUMNS:
        yield from ((odd, "none", True), (odd, "none", False), (odd, "self", False))


def lse_launch(name: str, dtype: torch.dtype, columns: int, tile: Tile, unit: bool, kind: str) -> Shipped:
    """Return one launch of "lse_fwd", "lse_bwd" or one of these with "_classes"."""
    from hsssl_kernels.lse import kernel

    value = f"*{_NAMES[dtype]}"
    signature = dict.fromkeys(("n", "m", "self_offset", "half", "span"), "i32")
    signature |= {"scale": "fp32", "x_ptr": value, "y_ptr": value}
    signature |= dict.fromkeys(("top_ptr", "total_ptr", "x_lse_ptr", "x_weight_ptr", "y_lse_ptr"), "*fp32")
    signature |= dict.fromkeys(("y_weight_ptr", "out_ptr", "x_pull_ptr", "y_pull_ptr"), "*fp32")
    signature |= {"near_ptr": "*fp32", "x_label_ptr": "*i64", "y_label_ptr": "*i64"}
    constants = {"D": columns, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_D": tile.block_d}
    constants |= {"UNIT": unit, "EXCLUDE_SELF": kind != "none", "PAIRS": kind == "pair"}
    constants |= {"LABELS": kind == "classes"}
    function = kernel._lse_fwd_kernel
    if name.startswith("lse_bwd"):
        function = kernel._lse_bwd_kernel
        constants |= {"BLOCK_O": tile.block_o, "LIFT": 14 if dtype == torch.float16 else 0}
    label = f"{name} D={columns} {_NAMES[dtype]} {'unit' if unit else 'raw'} {tuple(tile)}"
    label += f" {kind}"
    return Shipped(label, _NAMES[dtype], function, signature, constants, tile.options(), True)


def patch_embed_launches(architecture: str) -> Iterator[Shipped]:
    """Yield launches of the patch embedding and its gradient: of patches and cubes, all tokens and some."""
    for (name, arch, size), entries in TABLE.items():
        if arch == architecture and name.startswith("patch_embed"):
            for largest, tile in entries:
                wide = min(largest, 384)
                if size == 2:
                    cube = "bwd" in name or name.endswith("more")
                    yield _patch_embed_launch(name, "bf16", wide, tile, "i16", 8, cube, "ieee")
                    yield _patch_embed_launch(name, "fp16", wide - 24, tile, "fp32", 8, False, "ieee")
                    yield _patch_embed_launch(name, "bf16", wide, tile, "i16", 3, False, "ieee")
                else:
                    yield _patch_embed_launch(name, "fp32", wide, tile, "u16", 3, True, "ieee")
                    yield _patch_embed_launch(name, "fp32", wide, tile, "fp32", 1, False, "tf32")


def _patch_embed_launch(
    name: str, dtype: str, columns: int, tile: Tile, raw: str, patch: int, cube: bool, how: str
) -> Shipped:
    from hsssl_kernels.spectral_patch_embed import kernel

    more = name.endswith("more")  # of all tokens as of some
    masked = name.endswith("some") or (more and raw == "fp32")
    far = cube and not more
    constants: dict[str, Any] = {"D": columns, "PATCH": patch, "GROUP": 10, "CUBE": cube, "FAR": far}
    constants |= {"HIGH": 3, "WIDE": 3}
    bands_first = raw == "fp32" and patch > 1  # whose pixels lie side by side, four at a time
    constants |= {"MASKED": masked, "MIXED": masked, "FULL": bands_first, "PIXELS_FIRST": bands_first}
    constants |= {"RUN": 4 if bands_first else 1 if cube else 2}
    constants |= {"HAS_MEAN": True, "HAS_SCALE": True, "PRECISION": how}
    if cube or raw == "i16":
        constants["stride_c"] = 1  # bands last, as Triton specialises it
    if bands_first:
        constants["stride_w"] = 1
    if "bwd" not in name:
        function = kernel._embed_kernel
        norm = more and columns <= tile.block_n
        own = more and cube
        constants |= {"OWN": own, "TABLE": 2 if more else 1, "SHARE": 1}
        constants |= {"NORM": norm, "KEEP": norm, "BLOCK_G": 32}
        constants |= {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_d}
    else:
        function = kernel._weight_grad_kernel
        constants |= {"BY_TABLE": how == "ieee"}
        constants |= {"BLOCK_D": tile.block_m, "BLOCK_K": tile.block_n, "BLOCK_T": tile.block_d}
    types = {"x_ptr": f"*{raw}", "spot_ptr": "*i64" if far else "*i32", "eps": "fp32"}
    types |= dict.fromkeys(("centre_ptr", "order_ptr", "visible_ptr", "start_ptr"), "*i64")
    types |= dict.fromkeys(("weight_ptr", "out_ptr", "before_ptr", "gradient_ptr"), f"*{dtype}")
    names = [name for name in function.arg_names if name not in constants]
    signature = {name: types.get(name, "*fp32" if name.endswith("_ptr") else "i32") for name in names}
    label = f"{name} D={columns} p={patch} {raw} {dtype} {how}{' masked' if masked else ''} {tuple(tile)}"
    return Shipped(label, dtype, function, signature, constants, tile.options(), True)


def express_launches(architecture: str) -> Iterator[Shipped]:
    """Yield launches of self-expression: forward and backward by rows and by columns, and the top sweep."""
    for (name, arch, size), entries in TABLE.items():
        if arch == architecture and name.startswith("express"):
            for largest, tile in entries:
                for dtype in ("fp32",) if size == 4 else ("bf16", "fp16"):
                    # what no power of two divides takes other loads
                    columns = min(largest, 512) - (12 if dtype == "fp16" else 0)
                    for by_row in (True, False)[: 1 if name == "express_top" else 2]:
                        yield _express_launch(name, dtype, columns, tile, by_row)


def _express_launch(name: str, dtype: str, columns: int, tile: Tile, by_row: bool) -> Shipped:
    from hsssl_kernels.self_expression import kernel, top_kernel

    constants: dict[str, Any] = {"D": columns, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n}
    constants |= {"BLOCK_D": tile.block_d}
    if name == "express_top":
        function = top_kernel._top_kernel
        constants |= {"BLOCK_K": 64}
    else:
        function = kernel._express_fwd_kernel if name == "express_fwd" else kernel._express_bwd_kernel
        constants |= {"F": columns, "BLOCK_O": tile.block_o, "BY_ROW": by_row}
    own = dict.fromkeys(("own_ptr", "column_ptr"), "*i64")
    own |= dict.fromkeys(("a_ptr", "b_ptr", "u_ptr", "v_ptr"), f"*{dtype}")
    names = [name for name in function.arg_names if name not in constants]
    signature = {name: own.get(name, "*fp32" if name.endswith("_ptr") else "i32") for name in names}
    label = f"{name} D={columns} {dtype} {'rows' if by_row else 'columns'} {tuple(tile)}"
    return Shipped(label, dtype, function, signature, constants, tile.options(), True)


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


def _unmixing_launches() -> Iterator[Shipped]:
    """Yield the kernels of `linear_mixing` and `spectral_angle`, few and many bands and endmembers."""
    from hsssl_kernels.linear_mixing import kernel as mixing
    from hsssl_kernels.spectral_angle import kernel as angle

    launches: list[tuple[Any, dict[str, Any], dict[str, Any]]] = []
    for columns, members in ((200, 5), (1024, 32)):
        block_n, block_d, block_p = mixing.mixing_block(members)
        shape = {"D": columns, "BLOCK_N": block_n, "BLOCK_D": block_d, "BLOCK_P": block_p}
        launches += [
            (mixing._mixing_rows_kernel, shape | {"ANGLE": True}, mixing.MIX_OPTIONS),
            (mixing._mixing_rows_kernel, shape | {"ANGLE": False}, mixing.MIX_OPTIONS),
            (mixing._mixing_abundance_grad_kernel, shape, mixing.MIX_OPTIONS),
            (mixing._mixing_endmember_grad_kernel, shape, mixing.MIX_OPTIONS),
        ]
        block_n, block_d = row_block(columns)
        rows = {"D": columns, "BLOCK_N": block_n, "BLOCK_D": block_d}
        launches += [(angle._angle_rows_kernel, rows, _ROWS), (angle._angle_grad_kernel, rows, _ROWS)]
        block_m, block_n, block_d = angle.TILE
        tile = {"D": columns, "BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_D": block_d}
        launches.append((angle._all_angles_kernel, tile, angle.ANGLE_OPTIONS))
    values = ("a_ptr", "e_ptr", "x_ptr", "y_ptr", "u_ptr", "v_ptr", "da_ptr", "dx_ptr", "dy_ptr")
    for (kernel, constants, options), dtype in product(launches, ("bf16", "fp32")):
        names = [name for name in kernel.arg_names if name not in constants]
        signature = {
            name: f"*{dtype}" if name in values else "*fp32" if name.endswith("_ptr") else "i32"
            for name in names
        }
        # matrix units are for the products of the inputs themselves; the mixing kernels multiply in float32
        dot = kernel is angle._all_angles_kernel
        label = f"{kernel.__name__} D={constants['D']} {dtype} {constants.get('ANGLE', '')}".rstrip()
        yield Shipped(label, dtype, kernel, signature, constants, options, dot)


def _view_launches(
    bands: int, line: int, patch_size: int, raw: str, dtype: str, full: bool
) -> Iterator[Shipped]:
    """Yield the kernel that makes views, noisy or not, and the one that draws what they differ in."""
    from hsssl_kernels.spectral_views import choice_kernel, kernel
    from hsssl_kernels.spectral_views.lines import AT_ONCE, filled

    wide = filled(bands)
    shape = {"C": bands, "P": patch_size, "WIDE": wide}
    flags = dict.fromkeys(("BY_BAND", "HAS_IDS"), full)
    views = shape | flags | {"LINE": line, "PADDED": line == wide, "SMOOTHS": full, "FAR": full}
    choices = shape | flags | {"HAS_VALID": full, "VARIED": full, "BLOCK_P": 128}
    choices["BLOCK_C"] = max(32, 1 << (bands - 1).bit_length())
    own = {
        "cube_ptr": f"*{raw}",
        "pixel_ptr": "*i32",
        "smooth_ptr": "*i32",
        "id_ptr": "*i64",
        "centre_ptr": "*i64",
        "key": "i64",
    }
    own |= dict.fromkeys(("keep_ptr", "valid_ptr"), "*u8") | dict.fromkeys(("a_ptr", "b_ptr"), f"*{dtype}")
    own |= dict.fromkeys(("gain", "offset", "illumination", "sigma"), "fp32")
    own |= dict.fromkeys(("flip", "block_drop"), "i64")  # chances of a half and more
    launches = [("view_choices", choice_kernel._choose_kernel, choices, choice_kernel.CHOICE_OPTIONS)]
    for noisy in (False, True)[: 1 + full]:
        span, block_p = kernel.view_block(bands, patch_size**2, line == wide and not noisy)
        constants = views | {"HAS_NOISE": noisy, "SPAN": span}
        constants |= {"BLOCK_C": AT_ONCE, "BLOCK_P": block_p}
        name = f"spectral_views{' noisy' if noisy else ''}"
        launches.append((name, kernel._spectral_views_kernel, constants, kernel.VIEW_OPTIONS))
    for name, function, constants, options in launches:
        names = [name for name in function.arg_names if name not in constants]
        signature = {name: own.get(name, "*fp32" if name.endswith("_ptr") else "i32") for name in names}
        label = f"{name} C={bands} of {line} P={patch_size} {raw} {dtype} {'full' if full else 'plain'}"
        yield Shipped(label, dtype, function, signature, constants, options, False)


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
