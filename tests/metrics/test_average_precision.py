"""Average precision: equal to pycocotools, and right about crowds, ties, classes, intervals and empty photos."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from species_wb.core import UserError
from species_wb.metrics.average_precision import BoxedPhoto, average_precision, best_overlap
from species_wb.metrics.intervals import wilson


def corners(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], axis=1)


@pytest.fixture(scope="module")
def reference() -> tuple[list[BoxedPhoto], dict[str, np.ndarray]]:
    "Random boxes in 40 photos, and what pycocotools says of them (average_precision_reference.py made both)."
    data = dict(np.load(Path(__file__).with_suffix("").parent / "average_precision.npz"))
    true, found = data.pop("true").astype(float), data.pop("found").astype(float)
    photos = []
    for photo in range(1, 41):
        t, f = true[true[:, 0] == photo], found[found[:, 0] == photo]
        classes = [rows[:, 1].astype(int).tolist() for rows in (t, f)]
        photos.append(BoxedPhoto(*map(corners, (t, f)), f[:, 6], *classes, t[:, 6].astype(bool).tolist()))
    return photos, data


def test_the_reference_holds_crowds_ties_many_boxes_and_a_class_that_is_never_there(reference):
    photos, data = reference
    assert sum(sum(photo.crowd) for photo in photos) > 5 and max(len(photo.scores) for photo in photos) > 100
    assert all(len(set(photo.scores)) < len(photo.scores) for photo in photos if len(photo.scores) > 20)
    assert data["by_class_each"][3].tolist() == [-1, -1] and any(4 in photo.found_classes for photo in photos)
    assert any(len(photo.true) == 0 for photo in photos)


@pytest.mark.parametrize("by_class", [True, False])
def test_it_is_what_pycocotools_says(reference, by_class):
    photos, data = reference
    said = average_precision(photos, by_class=by_class, resamples=1)
    expected = data["by_class" if by_class else "agnostic"]
    assert [said["map50"]["value"], said["map50_95"]["value"]] == pytest.approx(expected.tolist(), abs=5e-5)
    if by_class:
        each = [[one["map50"]["value"], one["map50_95"]["value"]] for one in said["classes"]]
        assert [one["class"] for one in said["classes"]] == [1, 2, 3]
        assert np.allclose(each, data["by_class_each"][:3], atol=5e-5)


def test_the_unit_of_the_boxes_does_not_matter(reference):
    photos, _ = reference
    shares = [BoxedPhoto(p.true / 512, p.found / 512, p.scores, p.true_classes, p.found_classes, p.crowd) for p in photos]
    ours, theirs = (average_precision(some, resamples=1) for some in (photos, shares))
    assert ours["map50_95"]["value"] == pytest.approx(theirs["map50_95"]["value"], abs=1e-12)


def test_a_box_in_a_crowd_neither_helps_nor_harms():
    true, found = [[0, 0, 10, 10], [20, 20, 90, 90]], [[0, 0, 10, 10], [30, 30, 40, 40], [50, 50, 60, 60]]
    flock = BoxedPhoto(true, found, [0.5, 0.9, 0.8], crowd=[False, True])
    said = average_precision([flock], resamples=1)
    assert said["map50"]["value"] == said["map50_95"]["value"] == 1 and said["boxes"] == 1
    counted = BoxedPhoto(true, found, [0.5, 0.9, 0.8])
    assert average_precision([counted], resamples=1)["map50"]["value"] < 0.5


def test_an_animal_beside_a_crowd_is_found_even_where_the_crowd_overlaps_more():
    photo = BoxedPhoto([[0, 0, 10, 10], [0, 0, 100, 100]], [[0, 0, 10, 6]], [0.9], crowd=[False, True])
    assert average_precision([photo], resamples=1)["map50"]["value"] == 1


def test_of_two_animals_that_a_box_overlaps_alike_it_takes_the_last_as_in_coco():
    photo = BoxedPhoto([[0, 0, 10, 8], [0, 2, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 6]], [0.9, 0.8])
    assert average_precision([photo], resamples=1)["map50"]["value"] == 1  # the second box only overlaps the first animal


def test_only_the_hundred_surest_boxes_of_a_photo_count():
    false = [[200 + k, 200, 205 + k, 205] for k in range(100)]
    late = BoxedPhoto([[0, 0, 10, 10]], [*false, [0, 0, 10, 10]], [0.9] * 100 + [0.1])
    assert average_precision([late], resamples=1)["map50"]["value"] == 0
    soon = BoxedPhoto([[0, 0, 10, 10]], [*false[1:], [0, 0, 10, 10]], [0.9] * 99 + [0.1])
    assert average_precision([soon], resamples=1)["map50"]["value"] == pytest.approx(0.01)


def test_the_interval_holds_the_score_and_is_wider_over_groups(reference):
    photos, _ = reference
    alone, cameras = (average_precision(photos, groups=g, resamples=300) for g in (None, [k // 8 for k in range(40)]))
    assert alone["n"] == cameras["n"] == 40 and alone["groups"] is None and cameras["groups"] == 5
    for said in (alone, cameras):
        for score in (said["map50"], said["map50_95"]):
            assert 0 <= score["low"] < score["value"] < score["high"] <= 1
    assert alone["map50"] == average_precision(photos, resamples=300)["map50"]  # the same seed, the same interval
    burst = [one for one in photos for _ in range(4)]
    one, four = (average_precision(burst, groups=g, resamples=300)["map50"] for g in (None, [k // 4 for k in range(160)]))
    assert four["high"] - four["low"] > 1.5 * (one["high"] - one["low"])  # four copies of a photo are one witness


def test_a_photo_drawn_twice_counts_twice():
    good, bad = BoxedPhoto([[0, 0, 1, 1]], [[0, 0, 1, 1]], [0.5]), BoxedPhoto([[0, 0, 1, 1]], [], [])
    said = average_precision([good, good, bad], resamples=400)
    values = [average_precision([good] * k + [bad] * (3 - k), resamples=1)["map50"]["value"] for k in range(4)]
    assert said["map50"]["value"] == values[2] and (said["map50"]["low"], said["map50"]["high"]) == (values[0], values[3])


def test_perfect_boxes_still_have_an_interval():
    perfect = [BoxedPhoto([[0, 0, 1, 1]], [[0, 0, 1, 1]], [0.9])] * 7
    assert average_precision(perfect, resamples=50)["map50"] == {"value": 1, "low": wilson(7, 7)[0], "high": 1}


def test_photos_without_a_true_box_are_refused_in_a_sentence():
    for photos in ([], [BoxedPhoto([], [[0, 0, 1, 1]], [0.9])], [BoxedPhoto([[0, 0, 1, 1]], [], [], crowd=[True])]):
        with pytest.raises(UserError, match="No photo has a true box"):
            average_precision(photos)


def test_empty_frames_count_against_a_detector_that_finds_things_in_them():
    owl, blank = BoxedPhoto([[0, 0, 1, 1]], [[0, 0, 1, 1]], [0.5]), BoxedPhoto([], [[0, 0, 1, 1]], [0.9])
    assert average_precision([owl, BoxedPhoto([], [], [])], resamples=1)["map50"]["value"] == 1
    assert average_precision([owl, blank], resamples=1)["map50"]["value"] == 0.5


def test_the_best_box_is_the_surest():
    animal = [[0, 0, 10, 10], [50, 50, 60, 60]]
    found = [([[0, 0, 10, 6]], [0.9]), ([[0, 0, 10, 4]], [0.9]), ([[30, 30, 40, 40], [50, 50, 60, 60]], [0.8, 0.9]), ([], [])]
    photos = [BoxedPhoto(animal, *one) for one in found]
    said = best_overlap([*photos, BoxedPhoto([], [[0, 0, 1, 1]], [0.9]), BoxedPhoto(animal[:1], animal[:1], [1], crowd=[True])])
    assert (said["k"], said["n"]) == (2, 4) and (said["low"], said["high"]) == wilson(2, 4)
    assert best_overlap([])["n"] == 0


def test_it_needs_numpy_only():
    code = "import sys, species_wb.metrics.average_precision; print({'torch', 'pandas', 'scipy', 'sklearn'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
