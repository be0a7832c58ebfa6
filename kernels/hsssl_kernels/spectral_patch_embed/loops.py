"""The gathering of single tokens, by a loop that Numba compiles at the first call and then keeps on disk."""

# The bodies of compiled functions hold no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import numpy as np

from hsssl_kernels.loops import compile_and_keep, compile_inline

__all__ = ["gather_tokens"]


@compile_and_keep
def gather_tokens(
    raw, strides, size, corners, tokens, values, bands, mean, scale, read_on, sample, token, out
):
    """Write normalised values of tokens (m,), each from its sample (m,), into ``out`` (m, K).

    ``raw`` (n,) holds x, of so many bands, at ``strides`` (sample, row, column, band). In a cube of ``size``
    (rows, columns) windows begin at ``corners`` (B, 2), which are none where x holds samples. ``tokens``
    (G S, 4) lists each token's row, column, group and first band, ``values`` (3, K) each value's row, column
    and band from there. Mean and scale are (G, K). A band that is not there gives 0. With ``read_on`` > 0 a
    sample of so many numbers is read from end to end before its first token, which brings it into the cache
    as picking here and there does not: two to five times as fast where many of its tokens are wanted.
    """
    count = np.uint64(values.shape[1])
    in_samples = (values[0] * strides[1] + values[1] * strides[2] + values[2] * strides[3]).astype(np.uint64)
    in_cube = np.empty_like(in_samples)
    last, line, seen = np.int64(-1), np.uint64(64 // raw.itemsize), out.dtype.type(0)
    for m in range(np.uint64(len(token))):
        row, col, group, band = tokens[token[m]]
        g, start, offset = np.uint64(group), band * strides[3], in_samples
        if len(corners):
            row, col, offset = row + corners[sample[m], 0], col + corners[sample[m], 1], in_cube
            for k in range(count):
                i, j = _mirror(row + values[0, k], size[0]), _mirror(col + values[1, k], size[1])
                offset[k] = np.uint64(i * strides[1] + j * strides[2] + values[2, k] * strides[3])
        else:
            begin = sample[m] * strides[0]
            start += begin + row * strides[1] + col * strides[2]
            if read_on and sample[m] != last:
                last = sample[m]
                for n in range(np.uint64(begin), np.uint64(min(begin + read_on, len(raw))), line):
                    seen += out.dtype.type(raw[n])
        at = np.uint64(start)
        if band + values[2, -1] < bands:
            for k in range(count):
                x = out.dtype.type(raw[at + offset[k]])
                out[m, k] = (x - mean[g, k]) * scale[g, k]
        else:
            for k in range(count):
                there = band + values[2, k] < bands
                x = out.dtype.type(raw[at + offset[k]]) if there else mean[g, k]
                out[m, k] = (x - mean[g, k]) * scale[g, k]
    return seen


@compile_inline
def _mirror(index, size):
    """Reflect an index once at either border without repeating the edge; see `reference.cut_windows`."""
    index = abs(index)
    return min(index, 2 * (size - 1) - index)
