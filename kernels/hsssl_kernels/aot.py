"""Compile kernels ahead of time for a GPU that need not be there, and report what came out.

Registers, spills, shared memory, matrix instructions and atomics are read from the machine code.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SHARED_LIMIT", "Report", "compile_ahead"]

# Bytes of shared memory a program may take; Triton itself does not refuse too much on AMD. Ampere's
# data-centre card has 166,912, but its tiles serve the consumer cards of its time too.
SHARED_LIMIT = {"sm_80": 101_376, "sm_90": 232_448, "gfx942": 65_536}


@dataclass(frozen=True)
class Report:
    """What one compiled kernel needs.

    ``registers`` are those of a thread, ``shared`` is in bytes, ``spills`` counts what goes to
    memory: local loads and stores on NVIDIA, spilled vector registers and scratch bytes on AMD.
    """

    registers: int
    spills: int
    shared: int
    wgmma: bool
    matrix: bool
    atomics: int


def compile_ahead(
    kernel: Any,
    signature: dict[str, str],
    constants: dict[str, Any],
    architecture: str,
    options: dict[str, Any],
) -> Report:
    """Compile a Triton kernel and report on it.

    Parameters
    ----------
    kernel : triton.JITFunction
        The decorated function, imported without TRITON_INTERPRET.
    signature : dict
        Argument name to Triton type ("*bf16", "i32", "fp32"); the constants are added.
    constants : dict
        Values of the `tl.constexpr` arguments.
    architecture : {"sm_80", "sm_90", "gfx942"}
        Target.
    options : dict
        num_warps, num_stages, enable_fp_fusion.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    hip = architecture.startswith("gfx")
    target = GPUTarget("hip", architecture, 64) if hip else GPUTarget("cuda", int(architecture[3:]), 32)
    names = list(kernel.arg_names)
    full = {name: "constexpr" if name in constants else signature[name] for name in names}
    # pointers from torch's allocator are aligned; without this vector loads vanish
    pointers = (i for i, name in enumerate(names) if full[name].startswith("*"))
    attributes = {(i,): [["tt.divisibility", 16]] for i in pointers}
    compiled_constants = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, full, compiled_constants, attributes)
    compiled = triton.compile(source, target=target, options=options)
    read = _read_amd if hip else _read_nvidia
    return read(compiled, architecture)


def _read_nvidia(compiled: Any, architecture: str) -> Report:
    ptx = compiled.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _tool("cuobjdump", "-res-usage", str(cubin))
        machine = _tool("nvdisasm", "-c", str(cubin))
    registers = re.search(r"REG:(\d+)", usage)
    if registers is None:
        raise OSError(f"cuobjdump said nothing of registers: {usage!r}")
    return Report(
        registers=int(registers[1]),
        spills=len(re.findall(r"\b(?:LDL|STL)\b", machine)),
        shared=int(compiled.metadata.shared),
        wgmma="wgmma" in ptx,
        matrix=bool(re.search(r"\b(?:HMMA|HGMMA|QGMMA)\b", machine)),
        atomics=len(re.findall(r"\b(?:atom|red\.global|red\.async)", ptx)),
    )


def _read_amd(compiled: Any, architecture: str) -> Report:
    text = compiled.asm["amdgcn"]

    def number(key: str) -> int:
        found = re.search(rf"\.{key}:\s*(\d+)", text)
        if found is None:
            raise OSError(f"the {architecture} assembly says nothing of {key}")
        return int(found[1])

    return Report(
        registers=number("vgpr_count"),
        spills=number("vgpr_spill_count") + number("private_segment_fixed_size"),
        shared=int(compiled.metadata.shared),
        wgmma=False,
        matrix="v_mfma" in text,
        atomics=len(re.findall(r"\b(?:global|flat|buffer|ds)_\w*atomic\w*|\bds_add_\w+", text)),
    )


def _tool(name: str, *arguments: str) -> str:
    import triton.backends.nvidia as nvidia

    program = Path(str(nvidia.__file__)).parent / "bin" / name
    return subprocess.run([str(program), *arguments], check=True, capture_output=True, text=True).stdout
