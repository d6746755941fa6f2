"""Drawn boxes: seen on any ground, people hidden, any size of photo and box."""

import numpy as np
import pytest

from species_wb.core import UserError
from species_wb.detect.drawn import DrawnBox, chip_place, draw_boxes, drawn_rows
from species_wb.detect.people import BLOCKS, WAYS, in_pixels, without_people
from species_wb.taxa import COLOURS


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize("tint", list(COLOURS.values()))
def test_an_outline_shows_on_any_ground(ground, tint):
    photo = np.full((300, 400, 3), ground, np.uint8)
    seen = draw_boxes(photo, [DrawnBox((0.3, 0.3, 0.7, 0.7), "", tint)])
    edge = seen[150, 110:125].astype(int).sum(1)
    assert np.abs(edge - 3 * ground).max() > 200, "somewhere the line is much lighter or darker than the ground"


@pytest.mark.parametrize("corners", [(0, 0, 1, 1), (0, 0.2, 0.5, 1), (0.4, 0, 1, 0.6)])
@pytest.mark.parametrize("size", [(120, 160), (300, 400), (1200, 1600)])
def test_all_four_sides_show_also_at_the_edge_of_the_photo(size, corners):
    seen = draw_boxes(np.full((*size, 3), 128, np.uint8), [DrawnBox(corners, "", "#FF0000")]).astype(int)
    red = (seen[..., 0] > 250) & (seen[..., 1] < 5)
    (high, wide), (x0, y0, x1, y1) = size, corners
    x, y, near = round((x0 + x1) / 2 * wide), round((y0 + y1) / 2 * high), max(8, min(size) // 20)
    for at in (round(x0 * wide), round(x1 * wide)):
        assert red[y, max(0, at - near) : at + near].any(), "the left or the right side"
    for at in (round(y0 * high), round(y1 * high)):
        assert red[max(0, at - near) : at + near, x].any(), "the upper or the lower side"


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (79, 80), (600, 800)])
@pytest.mark.parametrize(
    "corners", [(0, 0, 1, 1), (0.5, 0.5, 0.5001, 0.5001), (0.99, 0.99, 1, 1), (-1, -1, 2, 2), (2, 2, 3, 3)]
)
def test_any_photo_and_any_box_can_be_drawn(size, corners):
    photo = np.full((*size, 3), 90, np.uint8)
    for people in WAYS:
        boxes = [DrawnBox(corners, "Tyto alba subsp. longissima 0.92"), DrawnBox(corners, "person", person=True)]
        assert draw_boxes(photo, boxes, people).shape == photo.shape
    assert (photo == 90).all(), "the photo itself is not changed"


@pytest.mark.parametrize("size", [4, 10, 23, 24, 60, 500])
def test_a_blurred_person_keeps_a_few_blocks(size):
    photo = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    corners = (0.1, 0.1, 0.1 + size / 800, 0.1 + size / 600)
    hidden = without_people(photo, [corners])
    left, top, right, bottom = in_pixels(corners, 800, 600)
    colours = np.unique(hidden[top:bottom, left:right].reshape(-1, 3), axis=0)
    assert len(colours) <= (BLOCKS**2 if size >= 20 else 1)
    assert (hidden[:, 700:] == photo[:, 700:]).all(), "the rest stays"


def test_people_are_blurred_unless_asked_and_words_are_checked():
    photo = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    boxes = drawn_rows([{"x0": 0.2, "y0": 0.2, "x1": 0.8, "y1": 0.8, "code": "person", "label": None}])
    inside = slice(80, 120)
    assert not (draw_boxes(photo, boxes)[inside, inside] == photo[inside, inside]).all()
    assert (draw_boxes(photo, boxes, "keep")[inside, inside] == photo[inside, inside]).all()
    assert (draw_boxes(photo, boxes, "drop")[inside, inside] == 128).all()
    with pytest.raises(UserError, match="There is no --people show"):
        draw_boxes(photo, boxes, "show")


def test_labels_do_not_cover_one_another():
    taken, random = [], np.random.default_rng(2)
    for _ in range(6):
        x, y = random.uniform(0, 300, 2)
        taken.append(chip_place((x, y, x + 100, y + 100), (60, 15), (400, 400), taken))
    for k, a in enumerate(taken):
        assert 0 <= a[0] and 0 <= a[1] and a[2] <= 400 and a[3] <= 400
        for b in taken[:k]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
