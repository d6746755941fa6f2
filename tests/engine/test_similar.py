"""Similar photos are those whose embeddings point the same way."""

import numpy as np

from species_wb.engine.similar import most_similar


def test_neighbours_are_those_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    directions = np.random.default_rng(0).normal(0, 1, (300, 20)).astype(np.float32)
    rows = directions * np.random.default_rng(1).uniform(0.01, 100, (300, 1)).astype(np.float32)
    distance, index = NearestNeighbors(n_neighbors=9, metric="cosine").fit(rows).kneighbors(rows[[17]])
    found = most_similar(rows, 17)
    assert [n for n, _ in found] == index[0][1:].tolist()
    assert np.allclose([s for _, s in found], 1 - distance[0][1:], atol=2e-5)


def test_neighbours_in_a_tie_stand_in_the_order_of_their_rows():
    rng = np.random.default_rng(2)
    kinds, which = rng.normal(0, 1, (20, 100)).astype(np.float32), rng.integers(0, 20, 1003)
    for row in range(20):
        order = [n for n, _ in most_similar(kinds[which], row, k=2000)]
        assert sorted([row, *order]) == list(range(1003))
        alike = int((which == which[row]).sum()) - 1
        assert {int(which[n]) for n in order[:alike]} == {which[row]}
        for kind in range(20):
            same = [n for n in order if which[n] == kind]
            assert same == sorted(same)


def test_what_has_no_embedding_is_nobodys_neighbour():
    rows = np.ones((8, 4), np.float32)
    rows[1], rows[2, 3], rows[3, 0] = 0, np.nan, np.inf
    rows[4], rows[5] = 1e30, 1e-30  # their squares are infinity and 0 in float32
    assert [n for n, _ in most_similar(rows, 0)] == [6, 7]
    assert [most_similar(rows, n) for n in range(1, 6)] == [[]] * 5
    half = (300 * np.ones((3, 4))).astype(np.float16)  # its squares are too large for 16 bits
    assert most_similar(half, 0, k=1) == [(1, 1.0)]
    assert most_similar(rows[:1], 0) == []
