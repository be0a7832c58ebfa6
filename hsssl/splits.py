"""Training and test pixels: at random, by blocks with a guard band, or as given; never overlapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Split", "block_split", "fixed_split", "random_split"]

IntArray = NDArray[np.int64]
LabelArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test pixels of a labelled scene.

    Parameters
    ----------
    train, test : ndarray, int64, one-dimensional
        Flat indices of pixels (row x cols + col), ascending, without overlap.
    shape : tuple of 2 ints
        (rows, cols) of the scene.
    classes_tested : tuple of int
        Class ids that have test pixels, ascending; every one has training pixels.
    guard : int or None
        Every test pixel is more than this many pixels (Chebyshev) from every training pixel; None
        where no distance is promised.
    """

    train: IntArray
    test: IntArray
    shape: tuple[int, int]
    classes_tested: tuple[int, ...]
    guard: int | None = None

    def check(self) -> None:
        """Assert what a split promises: no pixel twice, none in both parts, none within the guard."""
        both = np.concatenate([self.train, self.test])
        assert np.unique(both).size == both.size, "a pixel is in a split twice"
        assert self.train.size, "a split has no training pixels"
        assert self.test.size, "a split has no test pixels"
        if self.guard is not None:
            assert distance_to_train(self).min() > self.guard, "a test pixel lies within the guard band"


def random_split(labels: LabelArray, per_class: int, seed: int) -> Split:
    """Draw ``per_class`` training pixels of each class without replacement; all others are the test.

    Neighbours of training pixels are tested, so features of patches, and position alone, score
    high: a figure to compare with the literature, not one to trust. See `block_split`.

    Parameters
    ----------
    labels : ndarray, shape (rows, cols), integer
        Class ids; 0 = unlabelled. Ids need not be contiguous.
    per_class : int
        Training pixels a class.
    seed : int
        Seeds `numpy.random.default_rng`.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        If a class has fewer than ``per_class + 1`` pixels.

    Examples
    --------
    >>> random_split(np.array([[1, 1, 2], [2, 1, 0]]), per_class=1, seed=0).test.size
    3
    """
    flat = _checked(labels, per_class)
    rng = np.random.default_rng(seed)
    train = []
    for label in _classes(flat):
        pixels = np.flatnonzero(flat == label)
        if pixels.size <= per_class:
            raise ValueError(
                f"random split: class {label} has {pixels.size} labelled pixels, {per_class + 1} are "
                f"wanted ({per_class} to train, one to test); lower per_class or remove the class"
            )
        train.append(rng.choice(pixels, per_class, replace=False))
    drawn = np.concatenate(train)
    return _finished(flat, drawn, np.setdiff1d(np.flatnonzero(flat), drawn), labels.shape, None)


def block_split(labels: LabelArray, per_class: int, guard: int, seed: int, tile: int = 16) -> Split:
    """Draw training and test pixels of each class from different tiles, a guard band apart.

    The scene is cut into square tiles. Of the tiles that hold a class, half (rounded down, at least
    one) are drawn for its training, and at most ``per_class`` training pixels from them. The test
    pixels of the class are those in its other tiles that are more than ``guard`` pixels (Chebyshev)
    from every training pixel of every class. Tiles are drawn class by class: one may train one class
    and test another, which the guard keeps apart. A class within one tile is trained and not tested.

    Drawing tiles for all classes jointly would test a third fewer pixels for no more distance; the
    guard, not the tile, is what keeps training and test apart.

    Parameters
    ----------
    labels : ndarray, shape (rows, cols), integer
        Class ids; 0 = unlabelled. Ids need not be contiguous.
    per_class : int
        Most training pixels a class.
    guard : int
        Width of the guard band in pixels; the radius of the features' footprint at least.
    seed : int
        Seeds `numpy.random.default_rng`; the training pixels do not depend on ``guard``.
    tile : int
        Side of a tile in pixels.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        If nothing is left to test, or an argument is out of range.

    References
    ----------
    Liang et al., "On the sampling strategy for evaluation of spectral-spatial methods in
    hyperspectral image classification", IEEE JSTARS, 2017, arXiv:1605.05829: why pixels at random do not.

    Examples
    --------
    >>> labels = np.repeat([[1, 2]], 8, axis=0).repeat(16, axis=1)  # (8, 32)
    >>> block_split(labels, per_class=5, guard=1, seed=0, tile=8).classes_tested
    (1, 2)
    """
    from scipy.ndimage import maximum_filter

    flat = _checked(labels, per_class)
    if guard < 0 or tile < 1:
        raise ValueError(f"block split: guard must be >= 0 and tile >= 1 pixels, got {guard} and {tile}")
    rng = np.random.default_rng(seed)
    rows, cols = np.divmod(np.arange(flat.size), labels.shape[1])
    tiles = rows // tile * labels.shape[1] + cols // tile
    trained, elsewhere = [], []
    for label in _classes(flat):
        pixels = np.flatnonzero(flat == label)
        drawn = rng.permutation(np.unique(tiles[pixels]))
        in_train = np.isin(tiles[pixels], drawn[: max(1, drawn.size // 2)])
        trained.append(pixels[in_train])
        elsewhere.append(pixels[~in_train])
    # Drawn after all tiles, so that the tiles of a seed do not depend on per_class.
    train = np.concatenate([rng.choice(pool, min(per_class, pool.size), replace=False) for pool in trained])
    near = np.zeros(labels.shape, dtype=np.uint8)
    near.ravel()[train] = 1
    near = maximum_filter(near, size=2 * guard + 1, mode="constant")
    rest = np.concatenate(elsewhere)
    test = rest[near.ravel()[rest] == 0]
    if not test.size:
        raise ValueError(
            f"block split: no test pixel is more than {guard} pixels from the training pixels; "
            "lower guard or per_class, or label more of the scene"
        )
    return _finished(flat, train, test, labels.shape, guard)


def fixed_split(train_labels: LabelArray, test_labels: LabelArray) -> Split:
    """Take the split that two label maps give.

    Parameters
    ----------
    train_labels, test_labels : ndarray, shape (rows, cols), integer
        Class ids of training and of test pixels; 0 = not in this part.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        If the maps differ in shape, share a pixel, one is empty, or a tested class is not trained.
    """
    train, test = _checked(train_labels, 1), _checked(test_labels, 1)
    if train_labels.shape != test_labels.shape:
        raise ValueError(
            f"fixed split: training labels {train_labels.shape} and test labels {test_labels.shape} "
            "must have the same shape; give two maps of one scene"
        )
    shared = np.count_nonzero((train > 0) & (test > 0))
    if shared:
        raise ValueError(
            f"fixed split: {shared} pixels are in the training and the test map; set them to 0 in one"
        )
    missing = sorted(set(_classes(test)) - set(_classes(train)))
    if missing:
        raise ValueError(
            f"fixed split: class {missing[0]} is in the test map and has no training pixel; "
            "add some or remove it"
        )
    return _finished(
        np.maximum(train, test), np.flatnonzero(train), np.flatnonzero(test), train_labels.shape, None
    )


def distance_to_train(split: Split) -> IntArray:
    """Return the Chebyshev distance (pixels) of each test pixel from the nearest training pixel."""
    from scipy.spatial import KDTree

    cols = split.shape[1]
    train = np.stack(np.divmod(split.train, cols), axis=1)  # (train pixels, 2)
    test = np.stack(np.divmod(split.test, cols), axis=1)  # (test pixels, 2)
    distance, _ = KDTree(train).query(test, p=np.inf)
    return np.asarray(np.rint(distance), dtype=np.int64)


def _checked(labels: LabelArray, per_class: int) -> IntArray:
    """Return the labels, flat, once they are usable."""
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(
            "labels must be integers of shape (rows, cols), 0 = unlabelled; got "
            f"{labels.dtype} {labels.shape}"
        )
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1 training pixel, got {per_class}")
    if not labels.any() or labels.min() < 0:
        raise ValueError(
            "labels must be class ids from 1 (0 = unlabelled), got "
            + ("a negative one" if labels.any() else "no labelled pixel")
        )
    return labels.ravel().astype(np.int64)


def _classes(flat: IntArray) -> list[int]:
    return [int(label) for label in np.unique(flat[flat > 0])]


def _finished(
    flat: IntArray, train: IntArray, test: IntArray, shape: tuple[int, ...], guard: int | None
) -> Split:
    """Sort both parts and check what was promised."""
    tested = tuple(_classes(flat[test]))
    split = Split(np.sort(train), np.sort(test), (shape[0], shape[1]), tested, guard)
    split.check()
    return split
