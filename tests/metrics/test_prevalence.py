"""What a classifier's mistakes did to a count can be undone, with an interval that holds the truth, or it is refused."""

import numpy as np
import pytest
from conftest import examples
from hypothesis import given as drawn
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binom

from species_wb.core import UserError
from species_wb.metrics.confusions import Confusions, check_confusions, confusions_of, drawn_shares, read_confusions, unmixed
from species_wb.metrics.prevalence import blaker, true_share


def test_the_published_examples_of_epi_prev_come_out():
    "cran/epiR 2.0.94, man/epi.prev.Rd: per 100, rounded there (so to half a unit of the last digit); the exact value to 5e-6."
    share = true_share(45, 150, 0.96, 0.89)
    assert [round(100 * value) for value in share] == [22, 14, 32] and share.value == pytest.approx(0.22353, abs=5e-6)
    rare = true_share(23, 150, 0.96, 0.89)
    assert round(100 * rare.value, 1) == 5.1 and round(100 * rare.low) == 0 and round(100 * rare.high) == 13
    with pytest.raises(UserError, match="6 of 151 .* mistakes alone would give 7.3.%"):  # there: 0, marked as invalid
        true_share(6, 151, 0.964, 0.927)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (1, 7), (3, 7), (45, 150), (149, 150), (2, 300)])
def test_blakers_ends_are_the_outermost_acceptable_shares(k, n):
    "Against a slow search on a grid of 1/2000 that sums the tails itself; tolerance: a step of the grid."
    counts, shares = np.arange(n + 1), np.arange(1, 2_000) / 2_000
    chances = binom.pmf(counts, n, shares[:, None])
    above, below = chances[:, k:].sum(1), chances[:, : k + 1].sum(1)
    upwards, downwards = chances.cumsum(1), chances[:, ::-1].cumsum(1)
    own = np.minimum(above, below)[:, None] + 1e-12
    other = np.where(above < below, np.where(upwards <= own, upwards, 0).max(1), np.where(downwards <= own, downwards, 0).max(1))
    acceptable = shares[np.minimum(above, below) + other >= 0.05]
    low, high = blaker(k, n)
    assert low == pytest.approx(0 if k == 0 else acceptable.min(), abs=5.1e-4)
    assert high == pytest.approx(1 if k == n else acceptable.max(), abs=5.1e-4)


def test_measured_shares_widen_the_interval_and_exact_ones_do_not():
    exact, many, few = true_share(45, 150, 0.96, 0.89), true_share(45, 150, 0.96, 0.89, (10**7, 10**7)), true_share(45, 150, 0.96, 0.89, (50, 50))
    assert many[1:] == pytest.approx(exact[1:], abs=0.01)  # Lang and Reiczigel's is not exact for known shares
    assert few.low < many.low and few.high > many.high and exact.value == many.value == few.value


@pytest.mark.parametrize("wrong", [(1, 0, 0.9, 0.9), (-1, 5, 0.9, 0.9), (1, 5, 0.4, 0.6), (1, 5, 1.1, 0.9), (1, 5, 0.9, float("nan")), (5, 5, 0.9, 0.9), (0, 5, 0.9, 0.9)])
def test_what_cannot_be_corrected_is_refused_with_a_sentence(wrong):
    with pytest.raises(UserError, match=r"^.+: .+\.$"):
        true_share(*wrong)


def matrices(k: int) -> st.SearchStrategy[np.ndarray]:
    "Confusion matrices in which each class gets its own label in at least 60 of 100 cases."
    weights = st.lists(st.floats(0.01, 1), min_size=k * k, max_size=k * k).map(lambda w: np.array(w).reshape(k, k))
    return weights.map(lambda w: 0.6 * np.eye(k) + 0.4 * w / w.sum(1, keepdims=True))


@examples(25)
@drawn(matrices(4), st.lists(st.floats(0, 5000), min_size=4, max_size=4))
def test_expected_counts_give_the_true_ones_back(matrix, true):
    "Tolerance: a ten-thousandth of the sum (the search stops there)."
    true = np.array(true)
    assert unmixed(true @ matrix, matrix) == pytest.approx(true, abs=1e-4 * max(true.sum(), 1) + 1e-6)


@examples(15)
@drawn(matrices(4), st.lists(st.integers(0, 300), min_size=4, max_size=4))
def test_no_count_is_negative_and_no_others_are_more_likely(matrix, seen):
    "Against scipy's optimiser on the same likelihood."
    seen = np.array(seen, float)
    found = unmixed(seen, matrix)
    assert (found >= 0).all() and found.sum() == pytest.approx(seen.sum(), rel=1e-3, abs=1e-6)

    def unlikely(true: np.ndarray) -> float:
        expected = np.maximum(true @ matrix, 1e-12)
        return float((expected - seen * np.log(expected)).sum())

    best = minimize(unlikely, np.full(4, seen.mean() + 1), bounds=[(0, None)] * 4, method="L-BFGS-B")
    assert unlikely(found) <= best.fun + 0.01  # of a log likelihood, where 2 is a difference that counts


def test_classes_that_are_confused_both_ways_are_refused_and_named():
    alike = confusions_of(["dog"] * 4 + ["wolf"] * 4, ["dog", "wolf"] * 4)
    with pytest.raises(UserError, match="wolf is labelled dog as often as dog itself is: join the two classes"):
        check_confusions(alike)
    with pytest.raises(UserError, match="No photo of wolf was checked"):
        Confusions(("dog", "wolf"), ("dog", "wolf"), np.array([[3, 1], [0, 0]]), np.zeros(2, int))


def test_a_matrix_without_an_inverse_still_shares_out_all_events():
    "A draw of the matrix may have two equal rows, and there may be more labels than classes."
    assert unmixed(np.array([6.0, 4.0]), np.full((2, 2), 0.5)).sum() == pytest.approx(10, rel=1e-3)
    assert unmixed(np.array([50.0, 10.0, 40.0]), np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])).sum() == pytest.approx(100, rel=1e-3)


def test_photos_left_open_are_misses():
    "Ten of forty foxes were left open: thirty labelled ones stand for forty."
    known = confusions_of(["fox"] * 40 + ["elk"] * 40, ["fox"] * 30 + [None] * 10 + ["elk"] * 40)
    assert unmixed(np.array([7.0, 30.0]), known.shares) == pytest.approx([7, 40], abs=0.01)
    assert drawn_shares(known, 500, np.random.default_rng(0)).sum(2).mean(0) == pytest.approx([1, 0.75], abs=0.02)


def test_a_matrix_from_a_spreadsheet_with_a_mark_and_odd_names(tmp_path):
    path = tmp_path / "matrix.csv"
    path.write_text("truth,'NA,red fox,\n'NA,9,1,\nred fox,0,8,2\n", encoding="utf-8-sig")
    known = read_confusions(path)
    assert known.classes == known.labels == ("NA", "red fox") and known.left_open.tolist() == [0, 2]
    with pytest.raises(UserError, match="is not there"):
        read_confusions(tmp_path / "gone.csv")


@pytest.mark.slow
@pytest.mark.parametrize("checked", [None, (100, 100)])
def test_corrected_shares_hold_the_truth(checked):
    "1,000 surveys of 300 events: between 93.5 and 97 in a hundred (Blaker's interval is exact, so a little above 95)."
    rng, truth, se, sp = np.random.default_rng(3), 0.3, 0.9, 0.92
    held = 0
    for positives in rng.binomial(300, truth * se + (1 - truth) * (1 - sp), 1000):
        shares = (se, sp) if checked is None else (rng.binomial(checked[0], se) / checked[0], rng.binomial(checked[1], sp) / checked[1])
        share = true_share(int(positives), 300, *shares, checked)
        held += share.low <= truth <= share.high
    assert 935 <= held <= 970
