"""Scenes that do not fit on the device: strips look like the whole scene, and take turns by seed and step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from hsssl.cube import Cube
from hsssl.sampling import load_resident, resident_bytes
from hsssl.spec import Sensor
from hsssl.tiles import TiledScene, load_scenes
from hsssl.train import pretrain
from hsssl.views import ViewSpec
from hsssl_kernels.spectral_views import spectral_views

SMALL = {"encoder_options": {"dim": 16, "hidden": 32, "channels": 32}, "batch_size": 32, "progress": False}


def scene(rows: int = 40, masked: slice = slice(10, 20)) -> Cube:
    rng = np.random.default_rng(0)
    values = rng.integers(1, 4000, (rows, 9, 5)).astype(np.uint16)
    values[masked] = 0
    return Cube(values, wavelengths=np.linspace(420, 980, 5), nodata=0)


def tiled(cube: Cube, **options: int) -> TiledScene:
    return TiledScene(
        cube, Sensor.of(cube), "cpu", **{"strip_rows": 7, "margin": 4, "seed": 1, "turn": 3, **options}
    )


def test_strips_cover_every_valid_pixel_once():
    cube = scene()
    tiles = tiled(cube)
    assert tiles.pixels == cube.valid.sum()
    # a strip without a valid pixel is never drawn
    assert [s.start for s in tiles.strips] == [0, 7, 14, 21, 28, 35]
    assert [s.start for s in tiled(cube, strip_rows=5).strips] == [0, 5, 20, 25, 30, 35]


def test_patches_are_those_of_the_whole_scene():
    cube = scene()
    whole, tiles = load_resident(cube, Sensor.of(cube)), tiled(cube)
    seen = set()
    for step in range(0, 90, 3):
        strip = tiles.strips[tiles._draw(step // tiles.turn)]
        part = tiles.at(step)
        first = max(0, strip.start - tiles.margin)
        seen.add(strip.start)
        assert len(part.centres) == cube.valid[strip].sum()
        assert torch.equal(part.values.int(), whole.values[first : first + len(part.values)].int())
        options = {"patch_size": 5, "spec": ViewSpec.none(), "seed": 0, "step": 0}
        views = [
            spectral_views(
                s.values, part.centres + offset, mean=s.mean, scale=s.scale, valid=s.valid, **options
            )
            for s, offset in ((part, torch.tensor([0, 0])), (whole, torch.tensor([first, 0])))
        ]
        assert torch.equal(views[0][0], views[1][0])
    assert len(seen) > 3


def test_turns_depend_on_seed_and_step_alone():
    cube = scene()
    forward = [tiled(cube).at(step).centres.sum().item() for step in (0, 1, 2, 3, 30)]
    tiles = tiled(cube)
    backward = [tiles.at(step).centres.sum().item() for step in (30, 3, 2, 1, 0)]
    assert forward == backward[::-1]
    assert forward[0] == forward[2]
    tiles = tiled(cube)
    assert tiles.at(0) is tiles.at(2)
    assert [tiled(cube, seed=2)._draw(n) for n in range(20)] != [tiles._draw(n) for n in range(20)]


def test_strips_are_drawn_in_proportion_to_their_valid_pixels():
    tiles = tiled(scene())
    drawn = Counter(tiles._draw(n) for n in range(2000))
    expected = tiles.shares / tiles.shares.sum()
    for strip, share in enumerate(expected.tolist()):
        assert drawn[strip] / 2000 == pytest.approx(share, abs=4 * (share / 2000) ** 0.5)


def test_scenes_are_tiled_only_where_they_do_not_fit():
    cubes = [scene(), scene(rows=80)]
    size = sum(resident_bytes(cube) for cube in cubes)
    assert size == 120 * 9 * 5 * 2  # 16-bit integers stay what they are
    whole = load_scenes(cubes, "cpu", resident_gib=size / 2**30, margin=2, seed=0)
    assert all(part.at(0) is part for part in whole)
    parts = load_scenes(cubes, "cpu", resident_gib=size * 0.6 / 2**30, margin=2, seed=0)
    assert [type(part) for part in parts] == [TiledScene, TiledScene]
    held = sum(2 * max(part.at(3 * n).values.nbytes for n in range(30)) for part in parts)
    assert held <= 0.6 * size
    assert all(
        type(whole).__name__ == "ResidentScene"
        for whole in load_scenes(cubes, "cpu", resident_gib=None, margin=2, seed=0)
    )


def test_too_little_memory_is_refused_with_what_is_needed():
    with pytest.raises(
        ValueError, match="do not hold two strips of the scene; give resident_gib of at least"
    ):
        load_scenes([scene()], "cpu", resident_gib=1e-7, margin=2, seed=0)
    with pytest.raises(ValueError, match="strip_rows >= 1"):
        tiled(scene(), strip_rows=0)


def test_a_tiled_scene_trains_and_resumes_to_the_same_weights(tmp_path):
    cube = scene(rows=60)
    limit = resident_bytes(cube) * 0.9 / 2**30
    options = SMALL | {"resident_gib": limit, "checkpoint_every": 40}
    assert isinstance(load_scenes([cube], "cpu", resident_gib=limit, margin=4, seed=0)[0], TiledScene)
    whole = pretrain([cube], "simclr", out=tmp_path / "a", steps=120, **options)
    # a run that stops after 80 steps and goes on from its checkpoint
    part = tmp_path / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hsssl.train._finite", _stop_at(90))
        with pytest.raises(KeyboardInterrupt):
            pretrain([cube], "simclr", out=part, steps=120, **options)
    resumed = pretrain([cube], "simclr", out=part, steps=120, resume=True, **options)
    assert resumed.weights_file.read_bytes() == whole.weights_file.read_bytes()
    loose = pretrain([cube], "simclr", out=tmp_path / "c", steps=120, **SMALL)
    assert loose.weights_file.read_bytes() != whole.weights_file.read_bytes()


def _stop_at(last: int):
    def finite(loss: float, step: int) -> float:
        if step >= last:
            raise KeyboardInterrupt
        return loss

    return finite


def test_resident_gib_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="resident_gib must be above 0 GiB, got -1"):
        pretrain([scene()], out=tmp_path / "run", steps=1, resident_gib=-1.0, **SMALL)
