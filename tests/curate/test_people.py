"""No picture of a photo shows a person whom the table names, unless someone asks; a thumbnail shows the box of its row."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from species_wb.core import UserError
from species_wb.curate import one_photo
from species_wb.curate.predictions import open_predictions
from species_wb.engine import toy
from species_wb.photos.pixels import decode, encode_jpeg
from species_wb.predictions import predictions_table, write_predictions

STRIPES = np.tile(np.array([[[0, 0, 0]], [[250, 250, 250]]], np.uint8).repeat(8, 0), (60, 1200, 1))  # 960 high
ANIMAL, PERSON = (0.1, 0.1, 0.4, 0.9), (0.6, 0.1, 0.9, 0.9)


def edges(corners: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    "A table of two photos with an animal and a person each, and of one photo without a box."
    monkeypatch.setenv("SPECIES_WB_HOME", str(tmp_path))
    toy.write_toy(tmp_path / "model.onnx", ("red", "green"), (0, 1), ((1, -1), (-1, 1), (0, 0)))
    rows = []
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(encode_jpeg(STRIPES + np.uint8(ord(name[0]) - 97)))
        sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        row = {"path": name, "sha256": sha256, "status": "ok", "abstained": False}
        named = {"label": "red", "score": 0.9, "top": [{"label": "red", "score": 0.9}]}
        boxes = [{**named, "box": 1, "box_score": 0.9, **edges(ANIMAL)},
                 {"box": 2, "box_score": 0.8, "code": "person", "abstained": True, **edges(PERSON)}]  # fmt: skip
        rows += [{**row, **box} for box in boxes] if name != "c.jpg" else [{**row, **named}]
    write_predictions(predictions_table(rows, tmp_path, ["red", "green"]), tmp_path / "predictions.parquet")
    return tmp_path


def rough(picture: np.ndarray, corners: tuple[float, ...]) -> float:
    "How much the inner half of a box differs from row to row; stripes do, and blocks do not."
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = corners
    inside = picture[int((y0 + 0.2) * height) : int((y1 - 0.2) * height), int((x0 + 0.1) * width) : int((x1 - 0.1) * width)]
    return float(np.abs(np.diff(inside.astype(float), axis=0)).mean())


LOOKS = {
    "thumbnail": one_photo.small_photo,
    "large": one_photo.large_photo,
    "map": lambda review, k: one_photo.heat_map_photo(review, k, "red")[0],
}


@pytest.mark.parametrize("look", list(LOOKS))
@pytest.mark.parametrize("k", [0, 1])
def test_every_picture_of_a_photo_hides_its_people_unless_asked(home, look, k):
    shown = {way: decode(LOOKS[look](open_predictions(home, people=way), k), None) for way in ("keep", "blur", "drop")}
    default = decode(LOOKS[look](open_predictions(home), k), None)
    assert (default == shown["blur"]).all(), "people are blurred by default"
    stripes = rough(shown["keep"], PERSON)
    assert stripes > 20 and rough(shown["blur"], PERSON) < stripes / 5 and rough(shown["drop"], PERSON) < stripes / 5
    assert rough(shown["blur"], ANIMAL) > stripes / 2, "the animal beside the person stays"


def test_a_person_elsewhere_blurs_no_other_photo(home):
    review = open_predictions(home)
    assert rough(decode(one_photo.small_photo(review, 4), None), PERSON) > 20


def test_a_thumbnail_shows_its_box_and_no_kept_one_of_another_row_or_choice(home):
    def pixel(k: int, people: str = "blur") -> int:
        "The largest difference of colours along the line where the animal's outline is."
        picture = decode(one_photo.small_photo(open_predictions(home, people=people), k), None).astype(int)
        at = round(ANIMAL[0] * picture.shape[1])
        return int(np.ptp(picture[60:140, at - 4 : at + 4], axis=2).max())

    assert pixel(0) > 60, "a coloured line on grey stripes"
    assert pixel(4) < 30, "a row without a box"
    kept = [path for path in (home / ".cache" / "thumbnails").rglob("*.jpg")]
    assert len(kept) == 2
    assert one_photo.small_photo(open_predictions(home), 0) != one_photo.small_photo(open_predictions(home), 1)
    assert one_photo.small_photo(open_predictions(home, people="keep"), 0) != one_photo.small_photo(open_predictions(home), 0)
    assert len([*(home / ".cache" / "thumbnails").rglob("*.jpg")]) == 4


def test_an_unknown_choice_is_a_sentence(home):
    with pytest.raises(UserError, match="There is no --people blurr: did you mean blur?"):
        open_predictions(home, people="blurr")
