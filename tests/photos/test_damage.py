"""What damage promises: a damaged photo of which enough is left gets the status ok, its pixels where they were in the
file and grey elsewhere, and a sentence that says how much is missing. It is left out of training unless asked for."""

import io
import re
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_scan import encoded, picture

from species_wb import cli_answers
from species_wb.classify.answers import summary, summary_sentences
from species_wb.common_names import full_names
from species_wb.contracts import manifest_table, read_manifest, write_table
from species_wb.core import UserError
from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.engine.predict import predict_manifest, predict_one
from species_wb.evaluate.evaluation import all_test
from species_wb.photos import inspection
from species_wb.photos.findings import findings
from species_wb.photos.findings_text import sentences
from species_wb.photos.pixels import decode, header_and_pixels
from species_wb.photos.reading import BadPhoto
from species_wb.photos.scan import scan
from species_wb.predictions import predictions_table
from species_wb.workspace import cache_folder

AGAIN = "Copy it again from the card if you can."


def meadow(side: int = 480) -> Image.Image:
    "A picture of 480 × 640 with colours, edges and a little noise."
    rng = np.random.default_rng(7)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(coarse) * 0.9 + rng.integers(0, 25, (side, side * 4 // 3, 3))).astype(np.uint8))


def share(reason: str) -> float:
    "The share that a sentence names, in percent."
    return 0.0 if "less than 1 %" in reason else float(re.search(r"([0-9]+) % of the picture is missing", reason)[1])


def same(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    "Of each row, whether it is that of the whole photo."
    return (np.abs(found.astype(int) - true).max((1, 2)) <= 4)


def test_a_jpeg_without_its_end_marker_is_the_whole_photo():
    data = encoded(meadow())
    head, found, said = header_and_pixels(data[:-2], None, "fox.jpg")
    assert (found == decode(data, None)).all() and (head.width, head.height) == (640, 480)
    assert said == f"fox.jpg is damaged: only the mark at the end of the file is missing. {AGAIN}"
    assert header_and_pixels(data, None)[2] is None and header_and_pixels(data + bytes(900), None)[2] is None


@pytest.mark.parametrize("size", (None, 256, 130))
@pytest.mark.parametrize("kept", (0.99, 0.9, 0.75))
def test_a_jpeg_that_lacks_rows_says_how_many_and_keeps_the_others(kept, size):
    data = encoded(meadow())
    true, (_, found, said) = decode(data, size), header_and_pixels(data[: int(len(data) * kept)], size, "fox.jpg")
    rows = same(found, true)
    lost = 1 - rows.mean()
    assert found.shape == true.shape and rows[: int(len(rows) * (1 - lost)) - 20].all()
    assert "the last " in said and abs(share(said) - 100 * lost) <= 5 and said.endswith(AGAIN)
    assert (found[-1, -1] == 128).all() and 100 * (1 - kept) / 3 <= share(said) <= 100 * (1 - kept) * 3


def test_too_little_of_a_photo_is_refused_as_before():
    for format, options in (("JPEG", {}), ("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {}), ("AVIF", {})):
        data = encoded(meadow(), format, **options)
        with pytest.raises(BadPhoto) as caught:
            decode(data[: len(data) // 3], None, "fox.jpg")
        assert caught.value.status == "cut-short" and "is cut short after" in caught.value.reason, format


@pytest.mark.parametrize("format, options, kept", [
    ("PNG", {}, 0.8), ("GIF", {"interlace": 0}, 0.8), ("TIFF", {}, 0.8), ("BMP", {}, 0.8), ("WEBP", {}, 0.8),
    ("WEBP", {"lossless": True}, 0.8), ("AVIF", {}, 0.9), ("PNG", {"mode": "L"}, 0.8), ("PNG", {"mode": "I;16"}, 0.8)])
def test_every_format_that_was_cut_gives_what_was_in_the_file(format, options, kept):
    image = meadow()
    if mode := options.pop("mode", None) if (options := dict(options)) else None:
        image = image.convert("L") if mode == "L" else Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    data = encoded(image, format, **options)
    true, (head, found, said) = decode(data, None), header_and_pixels(data[: int(len(data) * kept)], None, "fox")
    rows = same(found, true)
    lost = 100 * (1 - rows.mean())
    assert found.shape == true.shape and (head.width, head.height) == (640, 480)
    assert 100 * (1 - kept) / 2 < share(said) < 100 * (1 - kept) * 3 and abs(share(said) - lost) <= 2, said
    assert (found[~rows] == 128).all(2).mean() > 0.95


def test_a_heic_that_was_cut_gives_what_was_in_the_file():
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(meadow()).save(file, quality=80)
    data = file.getvalue()
    true, (_, found, said) = decode(data, None), header_and_pixels(data[: int(len(data) * 0.9)], None, "fox.heic")
    assert found.shape == true.shape and abs(share(said) - 100 * (1 - same(found, true).mean())) <= 2


def test_a_progressive_jpeg_that_was_cut_is_coarse_and_says_so():
    data = encoded(meadow(), progressive=True)
    found, said = header_and_pixels(data[:-200], None, "fox.jpg")[1:]
    assert np.abs(found.astype(int) - decode(data, None)).mean() < 8
    assert said == f"fox.jpg is damaged: the finest detail of the picture is missing. {AGAIN}"
    with pytest.raises(BadPhoto) as caught:  # of its ten passes two are there
        decode(data[: data.find(b"\xff\xda", data.find(b"\xff\xda", data.find(b"\xff\xda") + 2) + 2)], None)
    assert caught.value.status == "cut-short"


def test_a_hole_of_zeros_ends_what_is_believed_of_a_jpeg():
    data = encoded(meadow())
    at = int(len(data) * 0.8)
    found, said = header_and_pixels(data[:at] + bytes(2048) + data[at + 2048 :], None, "fox.jpg")[1:]
    rows = same(found, decode(data, None))
    assert rows[: int(480 * 0.7)].all() and (found[-1] == 128).all()
    assert "at least the last " in said and abs(share(said) - 100 * (1 - rows.mean())) <= 6


def test_a_jpeg_with_restart_markers_loses_only_what_was_hit():
    data = bytearray(encoded(meadow(), restart_marker_rows=1))
    true, at = decode(bytes(data), None), len(data) // 3
    data[at : at + 600] = bytes(600)
    found, said = header_and_pixels(bytes(data), None, "fox.jpg")[1:]
    rows = same(found, true)
    assert rows[:100].all() and rows[250:].all() and 0.9 < rows.mean() < 0.98
    assert 3 <= share(said) <= 8 and "the last" not in said
    data = encoded(meadow(), restart_marker_blocks=7)  # not a row of them
    found, said = header_and_pixels(data[: len(data) // 2] + b"\x55" * 90 + data[len(data) // 2 + 90 :], None)[1:]
    assert same(found, true).mean() > 0.9 and share(said) < 5


def test_a_damaged_part_of_a_png_is_not_taken_for_picture():
    data = bytearray(encoded(meadow(), "PNG"))
    at = int(len(data) * 0.8)
    data[at : at + 40] = bytes(40)
    found, said = header_and_pixels(bytes(data), None, "fox.png")[1:]
    rows = same(found, decode(encoded(meadow(), "PNG"), None))
    assert rows.mean() > 0.7 and (found[~rows] == 128).all() and share(said) == round(100 * (1 - rows.mean()))


def test_padding_that_harms_nothing_is_no_damage():
    data, exif = encoded(meadow(), quality=95), Image.Exif()
    exif[0x010E] = "\0" * 3000  # as programs leave room in the header
    for harmless in (data[:-2] + b"\x12\x34" * 50 + data[-2:], data + b"tail" * 900, encoded(meadow(), exif=exif)):
        assert header_and_pixels(harmless, None)[2] is None


def folder(root, *, test: bool = False):
    "Two classes of ten photos, two of them damaged, and one of which too little is left."
    for label, first in (("Aves", 0), ("Fungi", 10)):
        (root / label).mkdir(parents=True)
        for k in range(first, first + 10):
            (root / label / f"{k}.jpg").write_bytes(encoded(picture(k)))
    (root / "Aves" / "torn.jpg").write_bytes(encoded(picture(50))[:-2])
    (root / "Fungi" / "torn.jpg").write_bytes(encoded(picture(51))[:-60])
    (root / "Fungi" / "stump.jpg").write_bytes(encoded(picture(52))[:700])
    return root


@pytest.mark.usefixtures("workspace")
def test_damaged_photos_are_left_out_of_training_and_that_is_said(tmp_path):
    manifest = scan(folder(tmp_path / "photos"))
    found = findings(manifest)
    rows = {row["path"]: row for row in manifest.to_pylist()}
    for path in ("Aves/torn.jpg", "Fungi/torn.jpg"):
        assert (rows[path]["status"], rows[path]["split"], rows[path]["code"]) == ("ok", None, "damaged")
        assert rows[path]["reason"].endswith(AGAIN) and rows[path]["phash"] and rows[path]["width"] == 96
    assert rows["Fungi/stump.jpg"]["status"] == "cut-short" and [d["path"] for d in found["damaged"]] == ["Aves/torn.jpg", "Fungi/torn.jpg"]
    assert any(s.startswith("2 photos are damaged: 2 left out of training") for s in sentences(found))
    assert scan(tmp_path / "photos").equals(manifest)  # from the cache


@pytest.mark.usefixtures("workspace")
def test_the_splits_of_whole_photos_do_not_depend_on_damaged_ones(tmp_path):
    manifest = scan(folder(tmp_path / "photos"))
    for path in ("Aves/torn.jpg", "Fungi/torn.jpg", "Fungi/stump.jpg"):
        (tmp_path / "photos" / path).unlink()
    whole = {row["path"]: row["split"] for row in scan(tmp_path / "photos").to_pylist()}
    assert {row["path"]: row["split"] for row in manifest.to_pylist() if row["path"] in whole} == whole


@pytest.mark.usefixtures("workspace")
def test_damaged_photos_are_trained_on_where_a_person_asks(tmp_path):
    manifest = scan(folder(tmp_path / "photos"), use_damaged=True)
    torn = [row for row in manifest.to_pylist() if row["code"] == "damaged"]
    assert len(torn) == 2 and all(row["split"] and row["reason"] for row in torn)
    assert "left out" not in " ".join(sentences(findings(manifest)))
    write_table(manifest, tmp_path / "mine.parquet")
    with pytest.raises(UserError, match="which is used unchanged: scan its folder with damaged=True instead"):
        scan(tmp_path / "mine.parquet", use_damaged=True)


@pytest.mark.usefixtures("workspace")
def test_a_run_passes_the_wish_on_and_a_run_of_before_has_none(tmp_path):
    training_set = pytest.importorskip("species_wb.train.training_set")
    photos, asked = folder(tmp_path / "photos"), {"photos": "", "metadata": "", "seed": 0}
    asked["photos"] = str(photos)
    for name, wish, left_out in (("old", {}, 2), ("no", {"damaged": False}, 2), ("yes", {"damaged": True}, 0)):
        (tmp_path / name).mkdir()
        rows = training_set.manifest_of_run(tmp_path / name, asked | wish).to_pylist()
        assert sum(row["code"] == "damaged" and row["split"] is None for row in rows) == left_out, name


@pytest.mark.usefixtures("workspace")
def test_damaged_photos_in_a_test_folder_are_tested_on(tmp_path):
    for split in ("train", "test"):
        folder(tmp_path / "photos" / split)
        for path in (tmp_path / "photos" / split).glob("*/*.jpg"):
            path.write_bytes(path.read_bytes()[:-2] + bytes([0xFF, 0xD9, *split.encode()]) if "torn" not in path.name else path.read_bytes())
    manifest = scan(tmp_path / "photos")
    splits = {row["path"]: row["split"] for row in manifest.to_pylist() if row["code"] == "damaged"}
    assert splits == {"train/Aves/torn.jpg": None, "train/Fungi/torn.jpg": None, "test/Aves/torn.jpg": "test", "test/Fungi/torn.jpg": "test"}
    judged = all_test(scan(folder(tmp_path / "others")), []).to_pylist()
    torn = [row for row in judged if row["path"].endswith("torn.jpg")]
    assert [(row["split"], row["code"]) for row in torn] == [("test", "damaged")] * 2 and all(row["reason"] for row in torn)


@pytest.mark.usefixtures("workspace")
def test_a_cache_of_before_does_not_hide_the_answer(tmp_path, monkeypatch):
    photos = folder(tmp_path / "photos")
    with monkeypatch.context() as patch:  # as the version before left it
        patch.setattr(inspection, "CACHE_VERSION", b"1")
        patch.setattr(inspection, "LOOKED_AT", tuple(name for name in inspection.LOOKED_AT if name != "code"))
        patch.setattr(inspection, "header_and_pixels", lambda data, size, name: (_ for _ in ()).throw(BadPhoto("cut-short", "It was cut.")))
        with pytest.raises(UserError):
            scan(photos)
    (file,) = cache_folder("scans").glob("*.parquet")
    assert set(pq.read_table(file)["status"].to_pylist()) == {"cut-short"}
    assert Counter(row["status"] for row in scan(photos).to_pylist()) == {"ok": 22, "cut-short": 1}


def test_a_manifest_of_before_is_still_read(tmp_path):
    row = {"path": "a.jpg", "label": "Aves", "split": "train", "status": "ok", "sha256": "a" * 64, "width": 9, "height": 9}
    write_table(manifest_table([row, {**row, "path": "b.jpg", "status": "cut-short", "reason": "b.jpg is cut short."}], tmp_path),
                tmp_path / "old.parquet")
    found = findings(read_manifest(tmp_path / "old.parquet"))
    assert found["damaged"] == [] and found["statuses"] == {"ok": 1, "cut-short": 1}


def test_the_same_bytes_give_the_same_answer_everywhere_and_say_why(tmp_path):
    model = open_model(toy.write_toy(tmp_path / "tiny.onnx"))
    red = encoded(Image.fromarray(np.full((120, 160, 3), (200, 20, 20), np.uint8)), "BMP")
    (tmp_path / "red.bmp").write_bytes(red[:-3000])
    row = predict_one(model, red[:-3000], {"path": "red.bmp"})
    assert (row["status"], row["label"]) == ("ok", "red") and share(row["reason"]) in (5, 6)
    manifest = manifest_table([{"path": "red.bmp", "label": "red", "status": "ok"}], tmp_path)
    (other,) = predict_manifest(model, manifest).to_pylist()
    assert (other["reason"], other["score"]) == (row["reason"], row["score"])
    assert cli_answers.said_of_photo(row, full_names(model.info.labels))[0] == row["reason"]
    torn = [row, predict_one(model, red, {"path": "whole.bmp"}), predict_one(model, red[:999], {"path": "stump.bmp"})]
    found = summary([predictions_table(torn, tmp_path, model.info.labels)], model.info)
    assert found["damaged"] == [{"status": "damaged", "count": 1, "examples": [row["reason"]]}]
    assert summary_sentences(found)[1] == f"Answered, but damaged, 1: {row['reason']}"
