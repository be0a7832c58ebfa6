"""Scores of clusters against values worked out by hand, and the matching behind them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsssl.cluster import match_clusters, score_clusters

# classes by clusters: [[3, 1, 0], [1, 2, 1], [0, 1, 3]] over 12 pixels
TRUTH = np.repeat([1, 2, 3], 4)
FOUND = np.array([9, 9, 9, 4, 9, 4, 4, 7, 4, 7, 7, 7])


def test_scores_by_hand() -> None:
    score = score_clusters(TRUTH, FOUND)
    assert score.acc == pytest.approx(8 / 12)  # 9 -> 1, 4 -> 2, 7 -> 3
    # kappa: chance is 3 (4/12 x 4/12) = 1/3
    assert score.kappa == pytest.approx((8 / 12 - 1 / 3) / (1 - 1 / 3))
    # mutual information: 2 cells of 3, 4 of 1 and 1 of 2 pixels, all margins 4; both entropies are log 3
    shared = 2 * 3 / 12 * np.log(3 / 12 * 9) + 4 / 12 * np.log(1 / 12 * 9) + 2 / 12 * np.log(2 / 12 * 9)
    assert score.nmi == pytest.approx(shared / np.log(3))
    # pairs together in both: 2 C(3,2) + C(2,2) = 7; in each: 3 C(4,2) = 18; of C(12,2) = 66
    chance = 18 * 18 / 66
    assert score.ari == pytest.approx((7 - chance) / (18 - chance))
    assert score.pixels == 12


def test_a_greedy_match_would_be_worse() -> None:
    """Cluster 1 shares most with class 1, but giving it class 2 wins more in all: 4 + 4 against 5 + 0."""
    truth = np.array([1] * 9 + [2] * 4)
    found = np.array([1] * 5 + [2] * 4 + [1] * 4)
    assert score_clusters(truth, found).acc == pytest.approx(8 / 13)
    assert match_clusters(truth, found).tolist() == [2] * 5 + [1] * 4 + [2] * 4


def test_unlabelled_and_unmeasured_pixels_do_not_count() -> None:
    truth = np.array([[1, 1, 2], [2, 0, 0]])
    found = np.array([[5, 5, 3], [0, 3, 8]])
    score = score_clusters(truth, found)
    assert score.acc == 1
    assert score.pixels == 3
    # cluster 8 has no class left: it gets the number after the highest class
    assert match_clusters(truth, found).tolist() == [[1, 1, 2], [0, 2, 3]]


def test_more_clusters_than_classes_cost_accuracy() -> None:
    truth = np.array([1, 1, 1, 2])
    found = np.array([1, 1, 2, 3])
    assert score_clusters(truth, found).acc == pytest.approx(3 / 4)
    assert match_clusters(truth, found).tolist() == [1, 1, 3, 2]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=40),
    st.permutations(range(4)),
)
def test_names_of_clusters_do_not_matter(pairs: list[tuple[int, int]], names: list[int]) -> None:
    truth, found = np.array(pairs).T
    renamed = np.array(names)[found - 1] + 1
    a, b = score_clusters(truth, found), score_clusters(truth, renamed)
    assert (a.acc, a.nmi, a.ari) == pytest.approx((b.acc, b.nmi, b.ari))
    # the matching is one to one, and no other renaming gives more
    best = (match_clusters(truth, found) == truth).mean()
    assert best == pytest.approx(a.acc)
    assert best >= (renamed == truth).mean() - 1e-12
    assert len(np.unique(match_clusters(truth, found))) == len(np.unique(found))


def test_classes_against_themselves() -> None:
    score = score_clusters(TRUTH, TRUTH * 10)
    assert (score.acc, score.nmi, score.ari, score.kappa) == pytest.approx((1, 1, 1, 1))
    assert str(score) == "ACC 1.000, NMI 1.000, ARI 1.000, kappa 1.000 (12 px)"


def test_bad_input_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"classes \(12,\) and clusters \(11,\) must have one shape"):
        score_clusters(TRUTH, FOUND[1:])
    with pytest.raises(ValueError, match="no pixel has both a class and a cluster"):
        score_clusters(np.array([0, 1]), np.array([1, 0]))
