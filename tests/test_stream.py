"""The tile loop: every pixel once, reading and writing beside computing, two tiles in memory."""

import re
import threading
import weakref

import numpy as np
import pytest
import tqdm
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl import stream
from hsssl.stream import Tile, block_side, cut_tiles, read_ahead, stream_tiles

WAIT = 30  # seconds until a thread that should have been there counts as missing


@settings(max_examples=60)
@given(
    rows=st.integers(1, 900),
    cols=st.integers(1, 900),
    pixel_bytes=st.integers(1, 2**14),
    halo=st.integers(0, 9),
)
def test_tiles_cover_an_image_once_in_whole_blocks(rows, cols, pixel_bytes, halo):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "TILE_BYTES", 2**24)
        tiles = cut_tiles(rows, cols, pixel_bytes=pixel_bytes, halo=halo)
        side = block_side(pixel_bytes)
    times = np.zeros((rows, cols), dtype=int)
    for tile in tiles:
        times[tile.rows, tile.cols] += 1
        assert tile.rows.start % side == tile.cols.start % side == 0
        assert tile.rows.stop % side == 0 or tile.rows.stop == rows
        assert tile.cols.stop % side == 0 or tile.cols.stop == cols
        assert tile.pixels * pixel_bytes <= max(2**24, 64 * 64 * pixel_bytes)
        assert tile.around[0] == slice(max(0, tile.rows.start - halo), min(rows, tile.rows.stop + halo))
        assert tile.around[1] == slice(max(0, tile.cols.start - halo), min(cols, tile.cols.stop + halo))
        image = np.arange(rows * cols).reshape(rows, cols)
        np.testing.assert_array_equal(image[tile.around][tile.inner], image[tile.rows, tile.cols])
    assert (times == 1).all()


@pytest.mark.parametrize(
    ("pixel_bytes", "side"), [(1, 256), (4096, 256), (4097, 128), (2**14 + 1, 64), (2**20, 64)]
)
def test_blocks_shrink_where_a_pixel_is_large(pixel_bytes, side):
    # 256 x 256 x 4096 bytes are 2**28.
    assert block_side(pixel_bytes) == side


def strips(count: int) -> list[Tile]:
    return [Tile(slice(n, n + 1), slice(0, 7), (slice(n, n + 1), slice(0, 7))) for n in range(count)]


def test_the_next_part_is_read_while_one_is_used():
    begun = [threading.Event() for _ in range(3)]

    def read(part):
        begun[part].set()
        return part

    for part, _ in read_ahead([0, 1, 2], read):
        if part < 2:
            assert begun[part + 1].wait(WAIT)
        assert not any(event.is_set() for event in begun[part + 2 :])


def test_a_tile_is_written_while_the_next_one_is_computed():
    writing, order = threading.Event(), []

    def compute(tile, values, tick):
        if tile.rows.start == 1:
            assert writing.wait(WAIT)
        return values

    def write(tile, result):
        assert threading.current_thread() is not threading.main_thread()
        order.append((tile.rows.start, result))
        writing.set()

    stream_tiles(strips(4), lambda tile: 10 * tile.rows.start, compute, write, desc="test")
    assert order == [(0, 0), (1, 10), (2, 20), (3, 30)]


def test_two_tiles_of_values_and_two_of_results_are_alive():
    alive = {"values": 0, "results": 0}
    most = dict(alive)

    def born(kind):
        array = np.zeros(3)
        alive[kind] += 1
        most[kind] = max(most[kind], alive[kind])
        weakref.finalize(array, lambda: alive.update({kind: alive[kind] - 1}))
        return array

    stream_tiles(
        strips(9),
        lambda tile: born("values"),
        lambda tile, values, tick: born("results"),
        lambda tile, result: None,
        desc="test",
    )
    assert most["values"] <= 2
    assert most["results"] <= 2
    assert alive == {"values": 0, "results": 0}


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_an_error_of_any_stage_is_raised_and_ends_the_loop(stage):
    reached = []

    def fail_at(name, tile):
        reached.append((name, tile.rows.start))
        if name == stage and tile.rows.start == 2:
            raise OSError(f"no more {name}")

    with pytest.raises(OSError, match=f"no more {stage}"):
        stream_tiles(
            strips(9),
            lambda tile: fail_at("read", tile),
            lambda tile, values, tick: fail_at("compute", tile),
            lambda tile, result: fail_at("write", tile),
            desc="test",
        )
    assert max(number for _, number in reached) <= 5
    assert not [t for t in threading.enumerate() if t.name.startswith("hsssl-")]


def test_the_bar_counts_every_pixel_once_and_shows_only_when_asked(capsys, monkeypatch):
    moved = []

    class Bar(tqdm.tqdm):
        def update(self, n=1):
            moved.append(n)
            return super().update(n)

    monkeypatch.setattr(tqdm, "tqdm", Bar)

    def run(progress):
        stream_tiles(
            strips(3),
            lambda tile: None,
            lambda tile, values, tick: tick(5),
            lambda tile, result: None,
            desc="embed",
            progress=progress,
        )
        return capsys.readouterr()

    shown = run(True)
    assert moved == [5, 2] * 3
    assert shown.out == ""
    assert re.search(r"embed: +0%.* 0.00/21.0 .*pixel/s", shown.err)
    assert run(None).err == run(False).err == ""  # the test's stderr is no terminal


def test_nothing_is_no_work():
    stream_tiles([], None, None, None, desc="nothing")
    assert list(read_ahead([], None)) == []
