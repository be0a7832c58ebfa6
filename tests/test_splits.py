"""Splits: nothing in both parts, the guard holds, every class is trained, a seed is a split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hsssl.scenes import Scene
from hsssl.splits import Split, block_split, fixed_split, random_split

IDS = np.array([1, 4, 10, 200])


@st.composite
def label_maps(draw: st.DrawFn) -> np.ndarray:
    """Patchy label maps of a few classes with ids that are not contiguous, some pixels unlabelled."""
    rows, cols = draw(st.integers(4, 24)), draw(st.integers(4, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = draw(st.integers(1, 6))
    fields = rng.choice(IDS[: draw(st.integers(1, 4))], (rows // side + 1, cols // side + 1))
    labels = fields.repeat(side, axis=0).repeat(side, axis=1)[:rows, :cols].copy()
    labels[rng.random((rows, cols)) < 0.2] = 0
    assume(labels.any())
    return labels


def brute_distances(split: Split) -> np.ndarray:
    """Chebyshev distance of every test pixel from every training pixel."""
    train = np.stack(np.unravel_index(split.train, split.shape), axis=1)
    test = np.stack(np.unravel_index(split.test, split.shape), axis=1)
    return np.abs(test[:, None] - train[None]).max(axis=2)


def classes_of(labels: np.ndarray, pixels: np.ndarray) -> set[int]:
    return set(labels.ravel()[pixels].tolist())


@given(label_maps(), st.integers(1, 5), st.integers(0, 9))
def test_random_split_takes_n_of_each_class_and_tests_the_rest(
    labels: np.ndarray, per_class: int, seed: int
) -> None:
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    if counts.min() <= per_class:
        scarce = ids[counts <= per_class][0]
        with pytest.raises(ValueError, match=rf"class {scarce} has \d+ labelled pixels, {per_class + 1} are"):
            random_split(labels, per_class, seed)
        return
    split = random_split(labels, per_class, seed)
    _, drawn = np.unique(labels.ravel()[split.train], return_counts=True)
    assert (drawn == per_class).all()
    assert drawn.size == ids.size
    np.testing.assert_array_equal(np.union1d(split.train, split.test), np.flatnonzero(labels))
    assert np.intersect1d(split.train, split.test).size == 0
    assert split.classes_tested == tuple(ids)
    assert split.guard is None
    again = random_split(labels, per_class, seed)
    np.testing.assert_array_equal(split.train, again.train)
    np.testing.assert_array_equal(split.test, again.test)


@given(label_maps(), st.integers(1, 8), st.integers(0, 4), st.integers(0, 9), st.integers(2, 9))
def test_block_split_keeps_the_guard_and_trains_every_class(
    labels: np.ndarray, per_class: int, guard: int, seed: int, tile: int
) -> None:
    try:
        split = block_split(labels, per_class, guard, seed, tile)
    except ValueError as error:
        assert "lower guard" in str(error)  # noqa: PT017 (the message is what this branch is about)
        return
    assert brute_distances(split).min() > guard
    assert np.intersect1d(split.train, split.test).size == 0
    assert classes_of(labels, split.train) == set(np.unique(labels[labels > 0]).tolist())
    assert classes_of(labels, split.test) == set(split.classes_tested)
    _, drawn = np.unique(labels.ravel()[split.train], return_counts=True)
    assert drawn.max() <= per_class
    again = block_split(labels, per_class, guard, seed, tile)
    np.testing.assert_array_equal(split.train, again.train)
    np.testing.assert_array_equal(split.test, again.test)


@given(label_maps(), st.integers(0, 9))
def test_block_split_trains_and_tests_a_class_in_different_tiles(labels: np.ndarray, seed: int) -> None:
    tile = 4
    try:
        split = block_split(labels, 1000, 0, seed, tile)
    except ValueError:
        return
    tiles = np.add.outer(np.arange(labels.shape[0]) // tile * 100, np.arange(labels.shape[1]) // tile).ravel()
    flat = labels.ravel()
    for label in np.unique(labels[labels > 0]):
        train = set(tiles[split.train[flat[split.train] == label]])
        test = set(tiles[split.test[flat[split.test] == label]])
        held = np.unique(tiles[flat == label]).size
        assert not train & test
        assert len(train) == max(1, held // 2)


def test_the_guard_does_not_move_the_training_pixels() -> None:
    labels = np.random.default_rng(0).integers(1, 3, (64, 64))
    near, far = (block_split(labels, 5, guard, seed=3) for guard in (1, 4))
    np.testing.assert_array_equal(near.train, far.train)
    assert set(far.test) < set(near.test)
    more = block_split(labels, 50, 1, seed=3)
    tiles = np.add.outer(np.arange(64) // 16 * 4, np.arange(64) // 16).ravel()
    assert set(tiles[near.train]) <= set(tiles[more.train])


def test_a_class_in_one_tile_is_trained_and_not_tested() -> None:
    labels = np.ones((16, 48), dtype=np.uint8)
    labels[:3, :3] = 7
    split = block_split(labels, 20, 2, seed=0)
    assert 7 in classes_of(labels, split.train)
    assert split.classes_tested == (1,)


def test_block_split_says_what_to_do_when_nothing_is_left() -> None:
    with pytest.raises(ValueError, match=r"no test pixel is more than 40 pixels .* lower guard"):
        block_split(np.ones((32, 32), dtype=int), 10, 40, seed=0)


def test_fixed_split_takes_the_maps() -> None:
    train = np.array([[3, 0, 5], [0, 0, 0]])
    test = np.array([[0, 3, 0], [3, 0, 0]])
    split = fixed_split(train, test)
    assert (split.train.tolist(), split.test.tolist()) == ([0, 2], [1, 3])
    assert split.classes_tested == (3,)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([[1, 0]], [[1, 1]], "1 pixels are in the training and the test map"),
        ([[1, 0]], [[0, 2]], "class 2 is in the test map and has no training pixel"),
        ([[1, 0]], [[0], [1]], "must have the same shape"),
        ([[1, 0]], [[0, 0]], "no labelled pixel"),
    ],
)
def test_fixed_split_refuses(train: list[list[int]], test: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fixed_split(np.array(train), np.array(test))


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        (np.ones((4, 4)), (1, 0, 0), "labels must be integers"),
        (np.ones(4, dtype=int), (1, 0, 0), "labels must be integers of shape"),
        (np.zeros((4, 4), dtype=int), (1, 0, 0), "no labelled pixel"),
        (np.full((4, 4), -1), (1, 0, 0), "a negative one"),
        (np.ones((4, 4), dtype=int), (0, 0, 0), "per_class must be at least 1"),
        (np.ones((4, 4), dtype=int), (1, -1, 0), "guard must be >= 0"),
        (np.ones((4, 4), dtype=int), (1, 0, 0, 0), "tile >= 1"),
    ],
)
def test_arguments_out_of_range(labels: np.ndarray, arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        block_split(labels, *arguments)


@pytest.mark.parametrize(
    ("train", "test", "guard", "message"),
    [
        ([0, 1], [1, 2], None, "twice"),
        ([0], [], None, "no test pixels"),
        ([], [0], None, "no training pixels"),
        ([0], [12], 2, "within the guard band"),
    ],
)
def test_check_finds_a_broken_split(
    train: list[int], test: list[int], guard: int | None, message: str
) -> None:
    split = Split(np.array(train, dtype=int), np.array(test, dtype=int), (5, 5), (1,), guard)
    with pytest.raises(AssertionError, match=message):
        split.check()


def test_indian_pines_keeps_most_classes_under_block(indian_pines: Scene) -> None:
    # METHODS of the project, measured: at guard 7 about 1,300 pixels and 10 to 12 classes remain.
    labels = indian_pines.labels
    splits = [block_split(labels, 100, 7, seed) for seed in range(5)]
    assert 900 < np.mean([split.test.size for split in splits]) < 1500
    assert all(9 <= len(split.classes_tested) <= 12 for split in splits)
    assert all(len(classes_of(labels, split.train)) == 16 for split in splits)
