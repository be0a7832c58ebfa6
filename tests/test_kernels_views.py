"""Views by the blocked path and by the Triton kernel against the reference; what their random stream is."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel's module is imported
pytest.importorskip("triton", reason="the package triton is not installed")

from hsssl_kernels import ViewSpec, spectral_views
from hsssl_kernels.random import mix_bits, normals, philox
from hsssl_kernels.spectral_views import blocked
from hsssl_kernels.spectral_views.draws import draw
from hsssl_kernels.spectral_views.noise import element_noise, noise_rows, noise_table
from hsssl_kernels.spectral_views.pages import empty_again
from hsssl_kernels.spectral_views.parallel import run_apart
from hsssl_kernels.spectral_views.reference import spectral_views_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NONE = ViewSpec.none()
FULL = replace(ViewSpec(), smooth=0.5)
RAW = [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float16, torch.float32, torch.float64]


def inputs(
    rows: int = 14, cols: int = 11, bands: int = 13, n: int = 9, raw: torch.dtype = torch.int16
) -> Any:
    g = torch.Generator().manual_seed(rows + bands)
    largest = {torch.uint8: 250, torch.uint16: 65000}.get(raw, 4000)
    cube = torch.randint(0, largest, (rows, cols, bands), generator=g).to(raw)
    wide = cube.double()
    return {
        "cube": cube.to(DEVICE),
        "centres": torch.stack([torch.arange(n) * 5 % rows, torch.arange(n) * 3 % cols], 1).to(DEVICE),
        "mean": wide.mean((0, 1)).float().to(DEVICE),
        "scale": (1 / (wide.std((0, 1)) + 1)).float().to(DEVICE),
        "valid": (torch.rand(rows, cols, generator=g) > 0.1).to(DEVICE),
        "seed": 3,
        "step": 5,
    }


def test_philox_gives_the_published_words() -> None:
    """Known answers of philox4x32-10 from Random123's kat_vectors (version 1.14.0)."""
    for counter, key, words in (
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ):
        assert [int(w) for w in philox(key, *(torch.tensor(c) for c in counter))] == words


def test_mixed_bits_are_a_permutation_uniform_and_depend_on_every_bit() -> None:
    x = torch.arange(1 << 20, dtype=torch.int32)
    mixed = mix_bits(x.clone())
    assert len(mixed.unique()) == len(x)
    for shift in (0, 8, 16, 24):
        counts = torch.bincount((mixed >> shift & 255).long(), minlength=256).double()
        chi2 = ((counts - 4096) ** 2 / 4096).sum()
        assert 160 < chi2 < 370  # 255 degrees of freedom: five deviations either way
    for bit in range(32):
        flip = 1 << bit if bit < 31 else -(1 << 31)
        changed = mixed ^ mix_bits(x ^ flip)
        share = torch.stack([(changed >> b & 1).double().mean() for b in range(32)])
        assert (share - 0.5).abs().max() < 0.01


def test_normals_are_normal() -> None:
    low, high = normals(torch.arange(1 << 16) * 65537)
    assert torch.equal(low, high)
    z = low.double().sort().values
    assert abs(z.mean()) < 1e-6
    assert abs(z.square().mean() - 1) < 1e-6
    assert abs(z.pow(4).mean() - 3) < 0.01
    values, counts = z.unique(return_counts=True)
    middle = (counts.cumsum(0) - counts / 2) / len(z)
    assert (torch.special.ndtr(values) - middle).abs().max() < 1e-3


def test_draws_of_samples_views_and_bands_are_independent() -> None:
    drawn = draw(replace(NONE, band_drop=0.5, gain=1.0, offset=1.0), torch.arange(1000), 64, 1, 77)
    for field in (drawn.keep, drawn.gain, drawn.offset):
        x = field.double()
        x = (x - x.mean()) / x.std()
        n = x.numel()
        for y, z in (
            (x[:, :-1], x[:, 1:]),
            (x[:-1], x[1:]),
            (x[:1000], x[1000:]),
            (x[:-1, :-1], x[1:, 1:]),
        ):
            assert abs((y * z).mean()) < 5 / n**0.5
    assert abs((drawn.gain * drawn.offset).mean()) < 5 / drawn.gain.numel() ** 0.5
    assert abs(drawn.keep.double().mean() - 0.5) < 0.01


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("spec", [replace(FULL, noise=0.0), NONE, replace(NONE, offset=0.1, smooth=1.0)])
@pytest.mark.parametrize("block", [1, 3000, 1 << 20])
def test_blocked_path_is_the_reference(
    raw: torch.dtype, spec: ViewSpec, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "_BLOCK", block)
    data = inputs(raw=raw, n=33)
    ours = spectral_views(patch_size=5, spec=spec, backend="torch", **data)
    right = spectral_views_reference(patch_size=5, spec=spec, **data)
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inference", [False, True])
def test_threads_change_nothing_and_leave_the_number_of_threads(
    inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, threads = inputs(n=33), torch.get_num_threads()
    alone = spectral_views(patch_size=5, spec=FULL, backend="torch", **data)
    monkeypatch.setattr(blocked, "_PART", 1)
    torch.set_num_threads(3)
    try:
        with torch.inference_mode(inference):
            together = spectral_views(patch_size=5, spec=FULL, backend="torch", **data)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_an_error_in_a_thread_is_raised_here() -> None:
    threads, done = torch.get_num_threads(), []

    def part(samples: slice) -> None:
        done.append(torch.get_num_threads())
        raise RuntimeError(f"part {samples.start}")

    with pytest.raises(RuntimeError, match="part 0"):
        run_apart(part, [slice(0, 1), slice(1, 2)], 2)
    assert set(done) == {1}
    torch.set_num_threads(threads)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is kept on Linux alone")
def test_memory_serves_again_only_when_nothing_refers_to_it() -> None:
    shape, cpu = (3, 1 << 20), torch.device("cpu")
    first = empty_again(shape, torch.float32, cpu).fill_(1)
    place = first.data_ptr()
    row, array = first[1], first.numpy()[2]
    del first
    other = empty_again(shape, torch.float32, cpu).fill_(2)
    assert other.data_ptr() != place
    assert (row == 1).all()
    del row
    third = empty_again(shape, torch.float32, cpu).fill_(3)
    assert third.data_ptr() != place
    assert (array == 1).all()
    del array
    again = empty_again((6, 1 << 20), torch.bfloat16, cpu)
    assert again.data_ptr() == place
    assert again.is_contiguous()
    assert (other == 2).all()
    assert (third == 3).all()


def test_large_views_of_one_call_outlive_the_next() -> None:
    data = inputs(20, 20, 200, 400) | {"patch_size": 8, "spec": replace(NONE, gain=0.1), "backend": "torch"}
    pair = spectral_views(**data)
    kept = [view.clone() for view in pair]
    others = spectral_views(**data | {"step": 6})
    assert all(torch.equal(a, b) for a, b in zip(pair, kept, strict=True))
    assert not torch.equal(others[0], kept[0])
    del pair, others
    for a, b in zip(spectral_views(**data), kept, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("bands", [1, 2, 3])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_few_bands_and_pixels(backend: str, bands: int, patch_size: int) -> None:
    data = inputs(2, 3, bands, 4)
    spec = replace(FULL, noise=0.0, jitter=9)
    ours = spectral_views(patch_size=patch_size, spec=spec, backend=backend, **data)
    right = spectral_views_reference(patch_size=patch_size, spec=spec, **data)
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_kernel_has_the_bits_of_the_reference(raw: torch.dtype, dtype: torch.dtype) -> None:
    data = inputs(raw=raw, n=5) | {"sample_ids": torch.tensor([-1, 2**62, 0, 7, 2**32], device=DEVICE)}
    for spec, patch_size in ((FULL, 5), (NONE, 4), (replace(NONE, offset=0.1, jitter=40), 3)):
        ours = spectral_views(patch_size=patch_size, spec=spec, dtype=dtype, backend="triton", **data)
        right = spectral_views_reference(patch_size=patch_size, spec=spec, dtype=dtype, **data)
        for a, b in zip(ours, right, strict=True):
            assert a.dtype == dtype
            assert torch.equal(a, b)


@pytest.mark.parametrize(("bands", "patch_size"), [(33, 9), (70, 7), (5, 12)])
def test_the_kernel_in_several_blocks(bands: int, patch_size: int) -> None:
    data = inputs(15, 13, bands, 3)
    ours = spectral_views(patch_size=patch_size, spec=FULL, backend="triton", **data)
    right = spectral_views_reference(patch_size=patch_size, spec=FULL, **data)
    assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_narrow_views_are_rounded_wide_ones(backend: str) -> None:
    data = inputs(n=4)
    wide = spectral_views(patch_size=3, spec=FULL, backend=backend, **data)
    narrow = [torch.float16, torch.bfloat16] if backend == "torch" or DEVICE == "cuda" else [torch.float16]
    for dtype in narrow:
        views = spectral_views(patch_size=3, spec=FULL, backend=backend, dtype=dtype, **data)
        assert all(torch.equal(a, b.to(dtype)) for a, b in zip(views, wide, strict=True))


@pytest.mark.parametrize("source", ["blocked", "element"])
def test_noise_is_white_and_normal(source: str) -> None:
    if source == "element":
        e = element_noise(77, torch.arange(40), 20, 49)
    else:
        drawn = draw(replace(NONE, noise=1.0), torch.arange(40), 20, 7, 77)
        table = noise_table(20, 49, torch.device("cpu"))
        rows = noise_rows(drawn.table, 49, len(table))
        assert all(len(row.unique()) == 49 for row in rows)
        e = table[rows]
    assert e.shape == (80, 49, 20)
    limit = 5 / e.numel() ** 0.5
    assert abs(e.mean()) < limit
    assert abs(e.square().mean() - 1) < 2 * limit
    assert abs(e.pow(4).mean() - 3) < 10 * limit
    for a, b in (
        (e[:40], e[40:]),
        (e[:-1], e[1:]),
        (e[:, :-1], e[:, 1:]),
        (e[..., :-1], e[..., 1:]),
        (e[:, :-8], e[:, 8:]),
    ):
        assert abs((a * b).mean()) < limit


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**62), order=st.permutations(range(8)), size=st.integers(1, 6))
def test_the_stream_goes_with_the_sample_not_with_its_place(seed: int, order: list[int], size: int) -> None:
    data = inputs(n=8) | {"seed": seed}
    ids, turned = torch.arange(8, device=DEVICE) * 2**31, torch.tensor(order, device=DEVICE)
    call = {"patch_size": size, "spec": ViewSpec(), "backend": "torch"}
    first = spectral_views(sample_ids=ids, **call, **data)
    data["centres"] = data["centres"][turned]
    second = spectral_views(sample_ids=ids[turned], **call, **data)
    assert all(torch.equal(a[turned], b) for a, b in zip(first, second, strict=True))


def test_without_ids_samples_are_named_by_their_place() -> None:
    data = inputs(n=6)
    ids = torch.arange(6)
    named = spectral_views(patch_size=3, spec=FULL, sample_ids=ids, backend="torch", **data)
    for a, b in zip(named, spectral_views(patch_size=3, spec=FULL, backend="torch", **data), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 8), mirror=st.booleans())
def test_nothing_on_is_the_plain_patch_and_two_mirrors_cancel(seed: int, size: int, mirror: bool) -> None:
    data = inputs() | {"seed": seed}
    (a, b), plain = (
        spectral_views(patch_size=size, spec=spec, backend="torch", **data)
        for spec in (replace(NONE, flip=float(mirror)), NONE)
    )
    assert torch.equal(a, b)
    assert a.data_ptr() != b.data_ptr()
    for view in plain:
        assert torch.equal(a.flip(2, 3) if mirror else a, view)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_dropped_and_invalid_values_are_zero_even_of_nan(backend: str) -> None:
    data = inputs(raw=torch.float32)
    data["cube"][~data["valid"]] = float("nan")
    data["cube"][..., 4] = float("inf")  # a band that is always dropped below
    spec = replace(FULL, band_drop=1.0, smooth=0.0)
    for view in spectral_views(patch_size=5, spec=spec, backend=backend, **data):
        assert (view == 0).all()
    data = inputs(raw=torch.float32)
    data["cube"][~data["valid"]] = float("nan")
    for view in spectral_views(patch_size=5, spec=FULL, backend=backend, **data):
        assert view.isfinite().all()


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_op_is_well_registered_and_empty_batches_pass(backend: str) -> None:
    data = inputs(n=2)
    shared = (data["cube"], data["centres"], data["mean"], data["scale"])
    for ids, valid in ((None, None), (torch.arange(2, device=DEVICE), data["valid"])):
        torch.library.opcheck(
            torch.ops.hsssl_kernels.spectral_views.default,
            (*shared, ids, valid, 3, FULL.strengths(), 1, 2, torch.float32, backend),
        )
    data["centres"] = data["centres"][:0]
    a, b = spectral_views(patch_size=3, spec=FULL, backend=backend, **data)
    assert a.shape == b.shape == (0, 13, 3, 3)


def test_views_have_no_gradient() -> None:
    data = inputs(n=2, raw=torch.float32)
    leaves = {k: data[k].requires_grad_() for k in ("cube", "mean", "scale")}
    a, b = spectral_views(patch_size=3, spec=FULL, **(data | leaves))
    assert not a.requires_grad
    assert not b.requires_grad


def test_compiles_whole_and_not_again_for_a_new_step() -> None:
    data = inputs(n=2)
    del data["step"]

    def pair(step: int) -> torch.Tensor:
        a, b = spectral_views(patch_size=3, spec=FULL, backend="torch", step=step, **data)
        return a - b

    graphs = []

    def count(module: Any, _: Any) -> Any:
        graphs.append(module)
        return module

    torch._dynamo.reset()
    compiled = torch.compile(pair, fullgraph=True, backend=count)
    for step in range(5):
        assert torch.equal(compiled(step), pair(step))
    assert len(graphs) <= 3


def test_specification_survives_as_numbers() -> None:
    assert ViewSpec.of(FULL.strengths()) == FULL
    assert ViewSpec.of(NONE.strengths()) == NONE


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU to compare with the CPU")
def test_choices_have_the_same_bits_on_every_device() -> None:
    for cpu, gpu in zip(
        *(draw(FULL, torch.arange(50, device=d), 33, 9, 7) for d in ("cpu", "cuda")), strict=True
    ):
        assert torch.equal(cpu, gpu.cpu())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cube": None}, TypeError, "`cube` must be a tensor, got NoneType"),
        ({"cube": torch.zeros(0, 3, 2)}, ValueError, "at least one of each, got"),
        ({"cube": torch.zeros(14, 11, 13, dtype=torch.int64)}, TypeError, r"got torch.int64; cast it first"),
        ({"centres": torch.zeros(3, 2)}, ValueError, r"`centres` must be int64 \(B, 2\), got torch.float32"),
        ({"centres": torch.tensor([[14, 0]])}, ValueError, r"14 x 11 pixels, got \(14, 0\)"),
        ({"centres": torch.tensor([[0, -1]])}, ValueError, r"14 x 11 pixels, got \(0, -1\)"),
        ({"mean": torch.zeros(12)}, ValueError, r"`mean` must be \(13,\) floating point"),
        ({"scale": torch.zeros(13).int()}, ValueError, r"`scale` must be \(13,\) floating point"),
        ({"sample_ids": torch.arange(3)}, ValueError, r"`sample_ids` must be int64 \(9,\), one id a centre"),
        ({"sample_ids": torch.zeros(9)}, ValueError, r"got torch.float32 \(9,\)"),
        ({"valid": torch.ones(14, 10).bool()}, ValueError, r"`valid` must be bool \(14, 11\)"),
        ({"valid": torch.ones(14, 11)}, ValueError, r"`valid` must be bool"),
        (
            {"patch_size": 12},
            ValueError,
            r"14 x 11 pixels, got 12; take a smaller patch",
        ),
        (
            {"dtype": torch.float64},
            TypeError,
            r"`dtype` must be float32, .* got torch.float64",
        ),
        ({"patch_size": 3.5}, TypeError, r"`patch_size` must be a whole number of pixels, got 3.5"),
        ({"seed": 1.5}, TypeError, r"`seed` must be a whole number, got 1.5"),
        ({"step": None}, TypeError, r"`step` must be a whole number, got None"),
        ({"seed": 2**63}, ValueError, r"`seed` must fit into 64 bits"),
        ({"spec": {}}, TypeError, r"`spec` must be a ViewSpec, got dict"),
        ({"backend": "cuda"}, ValueError, r'`backend` must be "auto", "triton" or "torch"'),
        ({"mean": torch.zeros(13, device="meta")}, ValueError, r"`mean` must be on cpu as `cube` is"),
        (
            {"sample_ids": torch.zeros(9, dtype=torch.int64, device="meta")},
            ValueError,
            r"or on the CPU, got meta",
        ),
    ],
)
def test_wrong_input_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    data = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in inputs().items()}
    with pytest.raises(error, match="spectral_views.*" + message):
        spectral_views(**({"patch_size": 3, "spec": NONE} | data | change))
