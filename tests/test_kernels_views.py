"""Views by compiled loops, by blocked torch and by the Triton kernel against the reference."""

from __future__ import annotations

import os
import subprocess
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

from hsssl_kernels import ViewSpec, resident_cube, spectral_views
from hsssl_kernels.spectral_views import blocked
from hsssl_kernels.spectral_views.draws import draw
from hsssl_kernels.spectral_views.lines import filled, in_lines, is_padded, padded, resident_line
from hsssl_kernels.spectral_views.reference import spectral_views_reference
from view_inputs import DEVICE, FULL, NONE, PATHS, inputs, views

RAW = [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("spec", [replace(FULL, noise=0.0), NONE, replace(NONE, offset=0.1, smooth=1.0)])
@pytest.mark.parametrize("block", [1, 3000, 1 << 20])
def test_blocked_path_is_the_reference(
    raw: torch.dtype, spec: ViewSpec, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "_BLOCK", block)
    data = inputs(raw=raw, n=33)
    ours = views("blocked", patch_size=5, spec=spec, **data)
    right = spectral_views_reference(patch_size=5, spec=spec, **data)
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bands", [1, 2, 3])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_few_bands_and_pixels(path: str, bands: int, patch_size: int) -> None:
    data = inputs(2, 3, bands, 4)
    spec = replace(FULL, noise=0.0, jitter=9)
    ours = views(path, patch_size=patch_size, spec=spec, **data)
    right = spectral_views_reference(patch_size=patch_size, spec=spec, **data)
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", ["compiled", "triton"])
@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_bits_are_those_of_the_reference(path: str, raw: torch.dtype, dtype: torch.dtype) -> None:
    if path == "compiled" and (DEVICE == "cuda" or raw == torch.float16):
        pytest.skip("loops are compiled for the CPU, which has no float16 in Numba")
    data = inputs(raw=raw, n=5) | {"sample_ids": torch.tensor([-1, 2**62, 0, 7, 2**32], device=DEVICE)}
    for spec, patch_size in ((FULL, 5), (NONE, 4), (replace(NONE, offset=0.1, jitter=40), 3)):
        ours = views(path, patch_size=patch_size, spec=spec, dtype=dtype, **data)
        right = spectral_views_reference(patch_size=patch_size, spec=spec, dtype=dtype, **data)
        for a, b in zip(ours, right, strict=True):
            assert a.dtype == dtype
            assert torch.equal(a, b)


@pytest.mark.parametrize("path", ["compiled", "triton"])
@pytest.mark.parametrize(("bands", "patch_size"), [(33, 9), (70, 7), (5, 12)])
def test_the_same_bits_in_several_tiles(path: str, bands: int, patch_size: int) -> None:
    if path == "compiled" and DEVICE == "cuda":
        pytest.skip("loops are compiled for the CPU")
    data = inputs(15, 13, bands, 3)
    ours = views(path, patch_size=patch_size, spec=FULL, **data)
    right = spectral_views_reference(patch_size=patch_size, spec=FULL, **data)
    assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("bands", "noise"), [(13, 0.0), (13, 0.1), (1, 0.0), (7, 0.1), (85, 0.0)])
def test_a_cube_in_lines_gives_the_same_bits(path: str, bands: int, noise: float) -> None:
    data = inputs(bands=bands, n=5, raw=torch.float32)
    call = {"path": path, "patch_size": 5, "spec": replace(FULL, noise=noise)}
    right = views(**call, **data)
    for wide in (bands + 9, filled(bands), filled(bands) + 8):
        between = torch.full((16, 11, wide), float("nan"), device=DEVICE)
        # other numbers lie between pixels; after the last pixel of the second there are none
        for place in (between[1:-1, :, :bands], between[2:, :, wide - bands :]):
            ours = views(**call, **data | {"cube": place.copy_(data["cube"])})
            assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True))
    ours = views(**call, **data | {"cube": padded(data["cube"], data["cube"].device)})
    assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True))


@pytest.mark.skipif(DEVICE == "cuda", reason="takes memory that the CPU promises and never fills")
def test_pixels_far_apart_are_found() -> None:
    far = torch.empty(2**31 + 2**29, dtype=torch.uint8).as_strided((2, 2, 3), (1_200_000_000, 600_000_000, 1))
    far.copy_(torch.arange(12).view(2, 2, 3))
    data = inputs(2, 2, 3, 4, torch.uint8) | {"valid": None}
    ours = views("triton", patch_size=2, spec=replace(FULL, smooth=1.0), **data | {"cube": far})
    right = views("triton", patch_size=2, spec=replace(FULL, smooth=1.0), **data | {"cube": far.contiguous()})
    assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True))


def test_lines_are_read_only_where_there_are_numbers() -> None:
    cube = torch.zeros(3, 5, 13)
    assert in_lines(cube)[1] == 13
    assert not is_padded(*in_lines(cube))
    line = padded(cube, cube.device)
    assert line.stride() == (80, 16, 1)
    assert in_lines(line)[0].data_ptr() == line.data_ptr()
    assert is_padded(*in_lines(line))
    assert is_padded(*in_lines(torch.zeros(3, 4, 16)))
    beyond = torch.zeros(3, 4, 16)[:, :, 3:]  # 16 numbers from its last pixel on would be 3 too many
    assert in_lines(beyond)[1] == 16
    assert not is_padded(*in_lines(beyond))
    for apart in (line[:, :2], line[:, ::2], line[::2], line.transpose(0, 1), line[..., ::2]):
        whole, distance = in_lines(apart)
        assert whole.is_contiguous()
        assert distance == apart.shape[2]
    # where there is one column, strides between columns say nothing
    one = torch.zeros(5, 1, 3).as_strided((5, 1, 3), (3, 77, 1))
    assert in_lines(one)[1] == 3
    assert in_lines(line.as_strided((3, 1, 13), (80, 80, 1)))[1] == 80


def test_a_resident_cube_has_the_same_numbers() -> None:
    cube = torch.arange(2 * 3 * 5).view(2, 3, 5).to(torch.uint16)
    for x in (cube, cube.transpose(0, 1), cube[:, :, :3]):
        ours = resident_cube(x, DEVICE)
        assert ours.dtype == x.dtype
        assert torch.equal(ours.cpu().int(), x.int())
        assert ours.is_contiguous()  # eight numbers for five would be too many
    for bands in (13, 16):
        ours = resident_cube(torch.ones(2, 3, bands), DEVICE)
        assert (ours == 1).all()
        assert ours.stride(1) == (bands if DEVICE == "cpu" else 16)
    gpu = torch.device("cuda")
    assert [resident_line(n, gpu) for n in (1, 4, 10, 13, 29, 103, 200)] == [1, 4, 10, 16, 32, 104, 200]
    with pytest.raises(ValueError, match=r"resident_cube: `cube` must be \(rows, cols, bands\), got \(5,\)"):
        resident_cube(torch.zeros(5))


CHANCE, STRENGTH = st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.07, 2.0])
SPECS = st.builds(
    ViewSpec,
    **dict.fromkeys(
        ["flip", "band_drop", "block_drop", "block_size", "smooth", "cutout", "cutout_size"], CHANCE
    ),
    **dict.fromkeys(["gain", "offset", "illumination", "noise"], STRENGTH),
    turn=st.booleans(),
    jitter=st.integers(0, 30),
)


@pytest.mark.skipif(DEVICE == "cuda", reason="loops are compiled for the CPU")
@settings(max_examples=60, deadline=None)
@given(
    spec=SPECS, seed=st.integers(-(2**63), 2**63 - 1), bands=st.integers(1, 40), patch_size=st.integers(1, 13)
)
def test_loops_draw_as_the_reference_does(spec: ViewSpec, seed: int, bands: int, patch_size: int) -> None:
    data = inputs(15, 13, bands, 6) | {"seed": seed, "sample_ids": torch.arange(6) * 2**61 - 3}
    ours = views("compiled", patch_size=patch_size, spec=spec, **data)
    right = spectral_views_reference(patch_size=patch_size, spec=spec, **data)
    assert all(torch.equal(a, b) for a, b in zip(ours, right, strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_narrow_views_are_rounded_wide_ones(path: str) -> None:
    data = inputs(n=19)
    wide = views(path, patch_size=3, spec=FULL, **data)
    narrow = [torch.float16, torch.bfloat16] if path != "triton" or DEVICE == "cuda" else [torch.float16]
    for dtype in narrow:
        pair = views(path, patch_size=3, spec=FULL, dtype=dtype, **data)
        assert all(torch.equal(a, b.to(dtype)) for a, b in zip(pair, wide, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**62),
    order=st.permutations(range(8)),
    size=st.integers(1, 6),
    path=st.sampled_from(["compiled", "blocked"]),
)
def test_the_stream_goes_with_the_sample_not_with_its_place(
    seed: int, order: list[int], size: int, path: str
) -> None:
    data = inputs(n=8) | {"seed": seed}
    ids, turned = torch.arange(8, device=DEVICE) * 2**31, torch.tensor(order, device=DEVICE)
    call = {"path": path, "patch_size": size, "spec": ViewSpec()}
    first = views(sample_ids=ids, **call, **data)
    data["centres"] = data["centres"][turned]
    second = views(sample_ids=ids[turned], **call, **data)
    assert all(torch.equal(a[turned], b) for a, b in zip(first, second, strict=True))


def test_without_ids_samples_are_named_by_their_place() -> None:
    data = inputs(n=6)
    ids = torch.arange(6)
    named = spectral_views(patch_size=3, spec=FULL, sample_ids=ids, backend="torch", **data)
    for a, b in zip(named, spectral_views(patch_size=3, spec=FULL, backend="torch", **data), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 8),
    mirror=st.booleans(),
    path=st.sampled_from(["compiled", "blocked"]),
)
def test_nothing_on_is_the_plain_patch_and_two_mirrors_cancel(
    seed: int, size: int, mirror: bool, path: str
) -> None:
    data = inputs() | {"seed": seed}
    (a, b), plain = (
        views(path, patch_size=size, spec=spec, **data) for spec in (replace(NONE, flip=float(mirror)), NONE)
    )
    assert torch.equal(a, b)
    assert a.data_ptr() != b.data_ptr()
    for view in plain:
        assert torch.equal(a.flip(2, 3) if mirror else a, view)


@pytest.mark.parametrize("path", PATHS)
def test_dropped_and_invalid_values_are_zero_even_of_nan(path: str) -> None:
    data = inputs(raw=torch.float32)
    data["cube"][~data["valid"]] = float("nan")
    data["cube"][..., 4] = float("inf")  # a band that is always dropped below
    spec = replace(FULL, band_drop=1.0, smooth=0.0)
    for view in views(path, patch_size=5, spec=spec, **data):
        assert (view == 0).all()
    data = inputs(raw=torch.float32)
    data["cube"][~data["valid"]] = float("nan")
    for view in views(path, patch_size=5, spec=FULL, **data):
        assert view.isfinite().all()


@pytest.mark.parametrize("path", PATHS)
def test_no_shift_ends_on_an_invalid_pixel(path: str) -> None:
    data = inputs(n=9)
    data["valid"][tuple(data["centres"].T)] = True
    assert not data["valid"].all()
    for view in views(path, patch_size=1, spec=replace(NONE, jitter=6), **data):
        assert (view != 0).any(1).all()


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


def test_numba_told_to_leave_loops_to_python_compiles_none() -> None:
    command = "from hsssl_kernels.spectral_views.paths import compiles_loops; print(compiles_loops())"
    for value in "01":
        run = subprocess.run(
            [sys.executable, "-c", command],
            env=os.environ | {"NUMBA_DISABLE_JIT": value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == str(value == "0")


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
