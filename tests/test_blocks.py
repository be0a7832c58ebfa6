"""Files in blocks: each is decoded once, however windows and tiles lie, and values stay what they are."""

from __future__ import annotations

import pickle
from collections import Counter
from importlib import import_module

import h5py
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl import blocks, stream
from hsssl.blocks import KeptBlocks, cut_parts
from hsssl.cube import Cube, block_of
from hsssl.lazy import LazyValues, load_or_defer
from hsssl.prepare import read_parts, scan_bands
from hsssl.readers import read
from hsssl.stream import cut_tiles, stream_tiles


class InBlocks:
    """Values as in a file of blocks, of which one is decoded whenever a window touches it."""

    def __init__(self, values: np.ndarray, block: tuple[int, int]) -> None:
        self.values, self.block = values, block
        self.decoded: Counter[tuple[int, int]] = Counter()

    def read_window(self, rows: slice, cols: slice, bands: np.ndarray) -> np.ndarray:
        high, wide = self.block
        for i in range(rows.start // high, -(-rows.stop // high)):
            for j in range(cols.start // wide, -(-cols.stop // wide)):
                self.decoded[i, j] += 1
        return self.values[rows, cols][:, :, bands]

    def lazy(self) -> LazyValues:
        """Return the values as a reader gives them."""
        how = {"lazy": True, "block": self.block, "source": "file"}
        return load_or_defer(self.read_window, self.values.shape, self.values.dtype, **how)


def numbers(rows: int, cols: int, bands: int) -> np.ndarray:
    return np.arange(rows * cols * bands, dtype=np.int32).reshape(rows, cols, bands)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), block=st.tuples(st.integers(1, 40), st.integers(1, 40)), kept=st.integers(0, 9000))
def test_windows_are_those_of_the_array_whatever_is_kept(data, block, kept):
    values = numbers(37, 29, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "KEPT_BYTES", kept)
        patch.setattr(blocks, "_LEAST", data.draw(st.sampled_from([(1, 1), (16, 64)])))
        late = InBlocks(values, block).lazy()
        for _ in range(6):
            top, left = data.draw(st.integers(0, 36)), data.draw(st.integers(0, 28))
            rows = slice(top, data.draw(st.integers(top + 1, 37)))
            cols = slice(left, data.draw(st.integers(left + 1, 29)))
            bands = data.draw(st.sampled_from([slice(None), slice(1, 3), 2]))
            np.testing.assert_array_equal(late[rows, cols, bands], values[rows, cols, bands])
            held = late.read_window._kept
            assert sum(part.nbytes for part in held.values()) <= kept


@pytest.mark.parametrize("block", [(1, 100), (7, 100), (16, 100), (64, 100), (32, 32), (64, 48)])
def test_tiles_with_a_halo_decode_every_block_once(block, monkeypatch):
    """A row of 16-pixel tiles reads six strips of 16 rows, and the row below it five of them again."""
    monkeypatch.setattr(stream, "BLOCK", 16)
    monkeypatch.setattr(stream, "TILE_BYTES", 1)
    file = InBlocks(numbers(150, 100, 4), block)
    late = file.lazy()
    tiles = cut_tiles(150, 100, pixel_bytes=1, halo=5, block=late.block)
    stream_tiles(tiles, lambda tile: late[tile.around], lambda *_: None, lambda *_: None, desc="read")
    assert set(file.decoded.values()) == {1}
    # read as windows, as from a file without blocks, each is decoded for every tile that touches it
    file.decoded.clear()
    for tile in tiles:
        file.read_window(*tile.around, np.arange(4))
    assert sum(file.decoded.values()) >= 4 * len(file.decoded)


@pytest.mark.parametrize("block", [(1, 100), (50, 100), (150, 100), (32, 32), (64, 48)])
def test_statistics_keep_one_block_at_a_time(block, monkeypatch):
    """Parts stay within a block, so that all are decoded once even where a row of blocks cannot be kept."""
    values = numbers(150, 100, 4)
    file = InBlocks(values, block)
    late = file.lazy()
    high, wide = late.block
    assert (high % block[0], wide % block[1]) == (0, 0)
    monkeypatch.setattr(blocks, "KEPT_BYTES", high * wide * 4 * 4)
    monkeypatch.setattr(import_module("hsssl.prepare"), "_TILE_VALUES", 500)
    cube = Cube(late)
    scan = scan_bands(cube)
    np.testing.assert_array_equal(scan.minimum, values.min(axis=(0, 1)))
    np.testing.assert_allclose(scan.mean, values.mean(axis=(0, 1)))
    assert set(file.decoded.values()) == {1}
    assert max(part.size for _, part in read_parts(cube)) <= max(500, wide * 4)


@given(
    shape=st.tuples(*(st.integers(1, 30),) * 3),
    most=st.integers(1, 2000),
    block=st.one_of(st.none(), st.tuples(st.integers(1, 40), st.integers(1, 40))),
)
def test_parts_cover_an_image_once(shape, most, block):
    times = np.zeros(shape[:2], dtype=int)
    for part in cut_parts(shape, most, block):
        times[part] += 1
    assert (times == 1).all()
    if block is None:
        assert [part[0].start for part in cut_parts(shape, most)] == sorted(
            part[0].start for part in cut_parts(shape, most)
        )


def test_tiles_come_block_by_block():
    tiles = cut_tiles(1024, 1024, pixel_bytes=4096, block=(512, 512))
    assert [tile.corner for tile in tiles[:5]] == [(0, 0), (0, 256), (256, 0), (256, 256), (0, 512)]
    assert sorted(tile.corner for tile in tiles) == [
        t.corner for t in cut_tiles(1024, 1024, pixel_bytes=4096)
    ]


def test_of_strips_too_wide_to_be_kept_parts_are(monkeypatch):
    """Strips of a row, 100 columns wide, of which about 6 columns fit: each tile would decode all of them."""
    monkeypatch.setattr(stream, "BLOCK", 16)
    monkeypatch.setattr(stream, "TILE_BYTES", 1)
    monkeypatch.setattr(blocks, "_LEAST", (4, 4))
    monkeypatch.setattr(blocks, "_TILE", 24)
    monkeypatch.setattr(blocks, "KEPT_BYTES", 24 * 64 * 4 * 4)
    values = numbers(150, 100, 4)
    file = InBlocks(values, (1, 100))
    late = file.lazy()
    assert (late.block, late.read_window._part) == ((4, 100), (4, 32))
    for tile in cut_tiles(150, 100, pixel_bytes=1, halo=2, block=late.block):
        np.testing.assert_array_equal(late[tile.around], values[tile.around])
    # four parts side by side, and many rows in the halo of the tiles below too; seven tiles take each of them
    assert max(file.decoded.values()) <= 2 * 4
    assert sum(file.decoded.values()) < 6 * len(file.decoded)
    file.decoded.clear()
    monkeypatch.setattr(import_module("hsssl.prepare"), "_TILE_VALUES", 500)
    scan_bands(Cube(late))
    assert set(file.decoded.values()) == {1}


def test_what_is_larger_than_is_kept_is_read_as_a_window(monkeypatch):
    monkeypatch.setattr(blocks, "KEPT_BYTES", 0)
    asked = []

    def read_window(rows, cols, bands):
        asked.append((rows, cols))
        return numbers(40, 40, 2)[rows, cols][:, :, bands]

    kept = KeptBlocks(read_window, (40, 40, 2), (40, 40), np.dtype(np.int32))
    kept(slice(3, 5), slice(7, 8), np.arange(2))
    assert asked == [(slice(3, 5), slice(7, 8))]


def test_readers_know_the_blocks_of_their_files(tmp_path):
    values = numbers(40, 60, 3).astype(np.int16)
    layouts = {
        "strips.tif": ({"blockysize": 8, "tiled": False}, (16, 60)),
        "tiles.tif": ({"blockxsize": 16, "blockysize": 32, "tiled": True}, (32, 64)),
    }
    for name, (layout, block) in layouts.items():
        profile = {"driver": "GTiff", "height": 40, "width": 60, "count": 3, "dtype": "int16"} | layout
        place = rasterio.Affine(1, 0, 0, 0, -1, 40)
        with rasterio.open(tmp_path / name, "w", compress="deflate", transform=place, **profile) as raster:
            raster.write(np.moveaxis(values, 2, 0))
        cube = read(tmp_path / name, lazy=True)
        assert block_of(cube.values) == block
        np.testing.assert_array_equal(cube.window(slice(5, 39), slice(3, 59)).values, values[5:39, 3:59])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(cube)).values[:], values)
        assert block_of(read(tmp_path / name).values) is None
    with h5py.File(tmp_path / "chunks.h5", "w") as file:
        file.create_dataset("cube", data=values.transpose(2, 0, 1), chunks=(1, 20, 30), compression="gzip")
    cube = read(tmp_path / "chunks.h5", axes="brc", lazy=True)
    assert block_of(cube.values) == (20, 60)
    np.testing.assert_array_equal(cube.values[11:33, 7:50], values[11:33, 7:50])
