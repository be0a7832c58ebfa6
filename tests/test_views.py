"""The views op: what each augmentation does, and what its random stream depends on."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl_kernels.spectral_views import ViewSpec, spectral_views
from hsssl_kernels.spectral_views.draws import draw

NONE = ViewSpec.none()


def scene(rows: int = 12, cols: int = 10, bands: int = 17) -> dict[str, torch.Tensor]:
    cube = torch.randint(0, 4000, (rows, cols, bands), generator=torch.Generator().manual_seed(1))
    cube = cube.to(torch.int16)
    return {"cube": cube, "mean": cube.float().mean((0, 1)), "scale": 1 / cube.float().std((0, 1))}


def views(spec: ViewSpec, *, seed: int = 0, step: int = 0, patch_size: int = 5, n: int = 64, **more):
    data = scene() | more
    centres = torch.stack([torch.arange(n) % 12, torch.arange(n) % 10], 1)
    cube = data.pop("cube")
    return spectral_views(
        cube, centres, patch_size=patch_size, spec=spec, seed=seed, step=step, **data
    ), centres


def normalised() -> torch.Tensor:
    data = scene()
    return (data["cube"].float() - data["mean"]) * data["scale"]


@pytest.mark.parametrize("patch_size", [1, 2, 3, 5, 10])
def test_without_augmentation_both_views_are_the_plain_patch(patch_size):
    (a, b), centres = views(NONE, patch_size=patch_size)
    assert torch.equal(a, b)
    z = normalised()
    reach = torch.arange(patch_size) - (patch_size - 1) // 2
    for x, (row, col) in zip(a, centres.tolist(), strict=True):
        rows = [abs(r) if r < 12 else 22 - r for r in (row + reach).tolist()]
        cols = [abs(c) if c < 10 else 18 - c for c in (col + reach).tolist()]
        expected = z[rows][:, cols].permute(2, 0, 1)
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)


def test_stream_depends_on_seed_and_step_only():
    (a, b), _ = views(ViewSpec(), seed=3, step=7)
    (again, _), _ = views(ViewSpec(), seed=3, step=7)
    assert torch.equal(a, again)
    assert not torch.equal(a, b)
    for other in ({"seed": 4, "step": 7}, {"seed": 3, "step": 8}):
        assert not torch.equal(a, views(ViewSpec(), **other)[0][0])


def test_symmetries_are_the_eight_of_the_square():
    spec = replace(NONE, flip=0.5, turn=True)
    (a, _), _ = views(spec, n=64)
    (plain, _), _ = views(NONE, n=64)
    seen = set()
    for x, y in zip(a, plain, strict=True):
        turned = [torch.rot90(z, k, (1, 2)) for z in (y, y.flip(2)) for k in range(4)]
        match = [i for i, z in enumerate(turned) if torch.equal(x, z)]
        assert match
        seen.update(match[:1])
    assert len(seen) == 8


def test_turn_alone_keeps_handedness():
    (a, _), _ = views(replace(NONE, turn=True))
    (plain, _), _ = views(NONE)
    for x, y in zip(a, plain, strict=True):
        assert any(torch.equal(x, torch.rot90(y, k, (1, 2))) for k in range(4))


def test_jitter_reaches_every_neighbour_and_no_further():
    centres = torch.tensor([[6, 5]]).repeat(800, 1)
    cube = torch.arange(120).view(12, 10, 1).to(torch.int16)
    a, b = spectral_views(
        cube,
        centres,
        patch_size=1,
        mean=torch.zeros(1),
        scale=torch.ones(1),
        spec=replace(NONE, jitter=2),
        seed=0,
        step=0,
    )
    expected = {float((6 + i) * 10 + 5 + j) for i in range(-2, 3) for j in range(-2, 3)}
    assert set(a.flatten().tolist()) == expected == set(b.flatten().tolist())


def test_dropped_bands_are_zero_in_all_pixels_and_the_share_is_right():
    (a, _), _ = views(replace(NONE, band_drop=0.3), n=400)
    zero = (a == 0).flatten(2)
    assert torch.equal(zero.all(2), zero.any(2))
    assert abs(zero.all(2).float().mean() - 0.3) < 0.03


def test_dropped_block_is_contiguous():
    (a, _), _ = views(replace(NONE, block_drop=1.0, block_size=0.5), n=200)
    dropped = (a == 0).flatten(2).all(2)
    lengths = dropped.sum(1)
    assert lengths.min() == 1
    assert lengths.max() == 8
    edges = (dropped[:, 1:] != dropped[:, :-1]).sum(1) + dropped[:, 0] + dropped[:, -1].int()
    assert (edges == 2).all()
    assert dropped[:, 0].any()
    assert dropped[:, -1].any()


def test_gain_acts_on_raw_numbers():
    data = scene()
    (a, _), _ = views(replace(NONE, illumination=0.1), patch_size=3)
    (plain, _), _ = views(NONE, patch_size=3)
    shape = (1, -1, 1, 1)
    raw = plain / data["scale"].view(shape) + data["mean"].view(shape)
    augmented = a / data["scale"].view(shape) + data["mean"].view(shape)
    strong = raw.amin((2, 3)) > 500
    ratio = (augmented / raw.clamp_min(1)).flatten(2)
    spread = (ratio.amax(2) - ratio.amin(2))[strong]
    assert spread.max() < 1e-3
    assert (ratio.mean(2)[strong] - 1).abs().mean() > 0.02


def test_noise_and_offset_are_in_band_standard_deviations():
    (a, _), _ = views(replace(NONE, noise=0.3))
    (b, _), _ = views(replace(NONE, offset=0.2))
    (plain, _), _ = views(NONE)
    assert abs((a - plain).std() - 0.3) < 0.01
    offset = (b - plain).flatten(2)
    assert offset.std(2).max() < 1e-4
    assert abs(offset.mean(2).std() - 0.2) < 0.03


def test_smoothing_is_one_two_one():
    (a, _), _ = views(replace(NONE, smooth=1.0), patch_size=1, n=5)
    (plain, _), _ = views(NONE, patch_size=1, n=5)
    padded = torch.cat([plain[:, :1], plain, plain[:, -1:]], 1)
    expected = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    torch.testing.assert_close(a, expected)


def test_cutout_leaves_the_centre():
    (a, _), _ = views(replace(NONE, cutout=1.0, cutout_size=0.8), n=300)
    gone = (a == 0).all(1)
    assert not gone[:, 2, 2].any()
    assert gone.flatten(1).any(1).float().mean() > 0.8
    assert gone.flatten(1).sum(1).max() in (15, 16)


def test_invalid_pixels_are_zero_even_where_the_cube_holds_nan():
    cube = scene()["cube"].float()
    valid = torch.rand(12, 10, generator=torch.Generator().manual_seed(0)) > 0.3
    cube[~valid] = float("nan")
    (a, b), _ = views(ViewSpec(), cube=cube, valid=valid, patch_size=7)
    assert torch.isfinite(a).all()
    assert torch.isfinite(b).all()
    (plain, _), _ = views(NONE, cube=cube, valid=valid, patch_size=1, n=60)
    at = torch.stack([torch.arange(60) % 12, torch.arange(60) % 10])
    assert torch.equal((plain.flatten(1) == 0).all(1), ~valid[at[0], at[1]])


AFFECTED = {
    "flip": {"symmetry"},
    "turn": {"symmetry"},
    "jitter": {"shift"},
    "gain": {"gain"},
    "illumination": {"gain"},
    "offset": {"offset"},
    "band_drop": {"keep"},
    "block_drop": {"keep"},
    "block_size": {"keep"},
    "smooth": {"smooth"},
    "cutout": {"cut"},
    "cutout_size": {"cut"},
    "noise": {"table"},
}


@settings(max_examples=50, deadline=None)
@given(key=st.integers(0, 2**62), name=st.sampled_from([f.name for f in fields(ViewSpec)]))
def test_turning_one_augmentation_off_changes_no_other_draw(key, name):
    off = replace(ViewSpec(), **{name: type(getattr(ViewSpec(), name))(0)})
    full, less = (draw(spec, torch.arange(32), 17, 9, key) for spec in (ViewSpec(), off))
    changed = {
        field
        for field, x, y in zip(full._fields, full, less, strict=True)
        if y is None or not torch.equal(x, y)
    }
    assert changed == AFFECTED[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cube": torch.zeros(4, 4)}, r"rows, cols, bands"),
        ({"cube": torch.zeros(12, 10, 17, dtype=torch.bool)}, r"integers or floats"),
        ({"patch_size": 11}, r"1 \.\.\. 10"),
        ({"patch_size": 0}, r"1 \.\.\. 10"),
        ({"mean": torch.zeros(3)}, r"`mean` must be \(17,\)"),
        ({"scale": torch.zeros(3)}, r"`scale` must be \(17,\)"),
        ({"valid": torch.ones(3, 3, dtype=torch.bool)}, r"`valid` must be bool"),
    ],
)
def test_wrong_input_is_refused(change, message):
    patch_size = change.pop("patch_size", 3)
    with pytest.raises((ValueError, TypeError), match=message):
        views(NONE, patch_size=patch_size, **change)


def test_centre_outside_is_refused():
    data = scene()
    with pytest.raises(ValueError, match=r"inside the scene of 12 x 10 pixels, got \(0, 10\)"):
        spectral_views(**data, centres=torch.tensor([[0, 10]]), patch_size=1, spec=NONE, seed=0, step=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1.5},
        {"noise": -0.1},
        {"gain": float("nan")},
        {"jitter": 1.5},
        {"jitter": 2**30},
        {"band_drop": -0.1},
    ],
)
def test_spec_refuses_nonsense(wrong):
    with pytest.raises(ValueError, match="ViewSpec"):
        ViewSpec(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise": "x"}, "`noise` must be a number, got 'x'"),
        ({"flip": None}, "`flip` must be a number, got None"),
        ({"turn": 0.5}, "`turn` must be True or False, got 0.5"),
        ({"gain": torch.tensor(0.1)}, "`gain` must be a number, got tensor"),
    ],
)
def test_spec_refuses_what_is_no_strength(wrong, message):
    with pytest.raises(TypeError, match="ViewSpec: " + message):
        ViewSpec(**wrong)
