"""Metrics against a published error matrix and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from hsssl.evaluate import average_accuracy, class_accuracy, confusion_matrix, kappa, overall_accuracy

# Error matrix of the 1986 land-cover map of the San Pedro watershed, table 9.4 in Lunetta and Lyon (eds.),
# "Remote Sensing and GIS Accuracy Assessment", CRC Press 2004. There rows are the map and columns the
# reference, so it is transposed here. Published beside it: 263 of 384 right, overall accuracy 68 %,
# kappa 0.61, and the producer's accuracies below in %.
# http://what-when-how.com/Tutorial/topic-676v5gucn/Remote-Sensing-and-GIS-Accuracy-Assessment-140.html
SAN_PEDRO = np.array(
    [
        [19, 1, 0, 0, 0, 0, 0, 0, 0],
        [3, 35, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 17, 3, 19, 0, 1, 0, 2],
        [0, 0, 12, 77, 12, 0, 1, 0, 2],
        [0, 0, 8, 13, 74, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 19, 2, 0, 0],
        [0, 0, 1, 4, 3, 2, 9, 1, 0],
        [0, 0, 0, 5, 3, 0, 0, 13, 0],
        [0, 0, 3, 10, 7, 0, 0, 0, 0],
    ]
).T
PRODUCERS = (86, 97, 42, 68, 62, 91, 69, 93, 0)


def test_a_published_error_matrix() -> None:
    assert overall_accuracy(SAN_PEDRO) == 263 / 384
    assert round(kappa(SAN_PEDRO), 2) == 0.61
    # Published figures are whole; 17 / 41 is given as 42 there.
    np.testing.assert_allclose(100 * class_accuracy(SAN_PEDRO), PRODUCERS, atol=0.6)
    assert average_accuracy(SAN_PEDRO) == pytest.approx(np.mean(PRODUCERS) / 100, abs=0.002)


def test_kappa_by_hand() -> None:
    # OA 30/40; chance (20 x 22 + 20 x 18) / 40^2 = 0.5; so (0.75 - 0.5) / (1 - 0.5).
    assert kappa(np.array([[16, 4], [6, 14]])) == pytest.approx(0.5, abs=1e-12)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_against_scikit_learn(classes: int, pixels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(50, classes, replace=False))
    truth, predicted = ids[rng.integers(0, classes, (2, pixels))]
    confusion = confusion_matrix(truth, predicted, ids.tolist())
    np.testing.assert_array_equal(confusion, reference.confusion_matrix(truth, predicted, labels=ids))
    assert overall_accuracy(confusion) == pytest.approx(reference.accuracy_score(truth, predicted))
    present = np.unique(truth)
    recalls = reference.recall_score(truth, predicted, labels=present, average=None)
    np.testing.assert_allclose(class_accuracy(confusion)[np.isin(ids, present)], recalls)
    assert average_accuracy(confusion) == pytest.approx(recalls.mean())
    if np.union1d(truth, predicted).size > 1:
        assert kappa(confusion) == pytest.approx(reference.cohen_kappa_score(truth, predicted), abs=1e-12)
    else:
        assert np.isnan(kappa(confusion))


def test_untested_classes_have_no_accuracy_and_do_not_count() -> None:
    confusion = confusion_matrix(np.array([2, 2, 9]), np.array([2, 5, 9]), (2, 5, 9))
    np.testing.assert_array_equal(class_accuracy(confusion), [0.5, np.nan, 1.0])
    assert average_accuracy(confusion) == 0.75


def test_the_order_of_classes_is_the_callers() -> None:
    truth, predicted = np.array([1, 1, 2]), np.array([1, 2, 2])
    np.testing.assert_array_equal(confusion_matrix(truth, predicted, (2, 1)), [[1, 0], [1, 1]])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="class 3 is not among"):
        confusion_matrix(np.array([1, 3]), np.array([1, 1]), (1, 2))
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix(np.array([1, 3]), np.array([1]))
