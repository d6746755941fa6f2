"""Boxes that someone has: every form is recognised by its content, paths that begin elsewhere are matched, and nothing unknown is called empty."""

import csv
import json
import math
import pickle
import resource
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from species_wb.contracts import write_table
from species_wb.core import UserError
from species_wb.detect import box_file
from species_wb.detect.given import Matches, match, read_box_file, read_boxes
from species_wb.detect.source import NotKnown
from species_wb.predictions import predictions_table, write_predictions

PHOTO = np.zeros((80, 100, 3), np.uint8)
BOX = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]}
EDGES = [[0.1, 0.2, 0.4, 0.6]]
CLASSES = {"1": "animal", "2": "person", "3": "vehicle"}


def megadetector(*images: dict, **more) -> dict:
    return {"images": list(images), "detection_categories": CLASSES, "info": {"format_version": "1.4"}, **more}


def coco(*boxes, images=({"id": 1, "file_name": "a.jpg", "width": 100, "height": 80},), names=("raccoon",)) -> dict:
    annotations = [{"id": k, "image_id": 1, "category_id": 1, "bbox": list(box), "iscrowd": 0} for k, box in enumerate(boxes, 1)]
    return {"images": list(images), "annotations": annotations, "categories": [{"id": k, "name": n} for k, n in enumerate(names, 1)]}


def opened(tmp_path, content, name="boxes.json", **more):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_boxes(path, **more)


def edges(given, path: str, photo=PHOTO) -> list:
    return given.find(photo, {"path": path}).corners.tolist()


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3", "1.4", "1.5", None])
def test_megadetector_of_every_format_is_read(tmp_path, version):
    file = megadetector({"file": "a.jpg", "max_detection_conf": 0.9, "detections": [BOX, {**BOX, "category": "2", "conf": 0.95}]})
    file["info"] = {"format_version": version} if version else {"detector": "md_v4.1.0.pb"}
    given = opened(tmp_path, file)
    found = given.find(PHOTO, {"path": "a.jpg"})
    assert found.corners.tolist() == pytest.approx(np.array(EDGES * 2), abs=1e-6) and found.labels == ("person", "animal")
    assert found.scores.tolist() == pytest.approx([0.95, 0.9]) and given.sees_people and given.least == 0.2


def test_what_megadetector_says_of_its_own_threshold_counts(tmp_path):
    about = {"format_version": "1.2", "detector_metadata": {"typical_detection_threshold": 0.8}}
    assert opened(tmp_path, megadetector({"file": "a.jpg", "detections": []}, info=about)).least == 0.8
    for odd in ("high", -1, 7, float("nan"), None, [1]):
        about["detector_metadata"]["typical_detection_threshold"] = odd
        assert opened(tmp_path, megadetector({"file": "a.jpg", "detections": []}, info=about)).least == 0.2


def test_an_empty_list_is_empty_and_a_failure_is_not(tmp_path):
    given = opened(tmp_path, megadetector(
        {"file": "empty.jpg", "detections": [], "failure": None}, {"file": "broken.jpg", "failure": "Failure image access", "detections": None},
        {"file": "old.jpg", "failure": "Failure image open", "detections": []}, {"file": "odd.jpg", "detections": None}, {"file": "none.jpg"},
        {"file": "film.mp4", "frame_rate": 20, "detections": [{**BOX, "frame_number": 0}]},
    ))  # fmt: skip
    assert len(given.find(PHOTO, {"path": "empty.jpg"})) == 0
    for name, said in (("broken", "image access"), ("old", "image open"), ("odd", "no detections"), ("none", "no detections")):
        with pytest.raises(NotKnown, match=said):
            given.find(PHOTO, {"path": f"{name}.jpg"})
    with pytest.raises(NotKnown, match="boxes of films"):
        given.find(PHOTO, {"path": "film.mp4"})
    with pytest.raises(NotKnown, match="is not in boxes.json"):
        given.find(PHOTO, {"path": "other.jpg"})


def test_a_class_without_a_name_counts_as_no_detection_as_the_format_says(tmp_path):
    given = opened(tmp_path, megadetector({"file": "a.jpg", "detections": [{**BOX, "category": "0"}, BOX]}))
    assert given.find(PHOTO, {"path": "a.jpg"}).labels == ("animal",)


def test_classes_may_come_after_the_photos_and_photos_after_their_boxes(tmp_path):
    file = coco([10, 16, 30, 32])
    for order in (("categories", "annotations", "images"), ("annotations", "images", "categories"), ("images", "categories", "annotations")):
        assert edges(opened(tmp_path, {name: file[name] for name in order}), "a.jpg") == pytest.approx(np.array(EDGES), abs=1e-6)


def test_coco_pixels_become_shares_and_boxes_by_hand_count_fully(tmp_path):
    given = opened(tmp_path, coco([10, 16, 30, 32]))
    found = given.find(np.zeros((40, 50, 3), np.uint8), {"path": "a.jpg"})  # a smaller copy
    assert found.corners.tolist() == pytest.approx(np.array(EDGES), abs=1e-6)
    assert found.scores.tolist() == [1] and found.labels == ("raccoon",) and given.least == 0 and not given.sees_people


def test_without_a_size_in_the_file_the_photo_gives_it(tmp_path):
    given = opened(tmp_path, coco([10, 16, 30, 32], images=[{"id": 1, "file_name": "a.jpg"}]))
    assert edges(given, "a.jpg") == pytest.approx(np.array(EDGES), abs=1e-6)


def test_a_photo_of_another_shape_is_not_known(tmp_path):
    given = opened(tmp_path, coco([10, 16, 30, 32]))
    for high, wide in ((100, 80), (80, 80), (90, 100)):
        with pytest.raises(NotKnown, match="100 × 80 pixels"):
            edges(given, "a.jpg", np.zeros((high, wide, 3), np.uint8))
    assert edges(given, "a.jpg", np.zeros((26, 33, 3), np.uint8))  # rounded to whole pixels
    assert edges(given, "a.jpg", np.zeros((1, 1, 3), np.uint8))  # the smallest copy says nothing of its shape


def test_a_list_of_coco_results_needs_the_file_that_names_the_photos(tmp_path):
    (tmp_path / "photos.json").write_text(json.dumps(coco([0, 0, 1, 1])))
    results = [{"image_id": 1, "category_id": 1, "bbox": [10, 16, 30, 32], "score": 0.7}]
    with pytest.raises(UserError, match="only by numbers"):
        opened(tmp_path, results)
    given = opened(tmp_path, results, photos=tmp_path / "photos.json")
    assert edges(given, "a.jpg") == pytest.approx(np.array(EDGES), abs=1e-6) and given.least == 0.2
    assert given.find(PHOTO, {"path": "a.jpg"}).scores.tolist() == pytest.approx([0.7])


def test_the_boxes_of_a_simulated_survey_are_read(tmp_path):
    from species_wb.simulate.survey import survey

    table = survey(tmp_path / "photos", photos=12, size=48, empty=0.3)
    given = read_boxes(tmp_path / "photos" / "boxes.json")
    rows = table.to_pylist()
    assert match(given, rows) == Matches(12, 0, 0, 0, "")
    for row in rows:
        found = given.find(np.zeros((48, 48, 3), np.uint8), row)
        if row["x0"] is None:
            assert len(found) == 0
        else:
            assert found.corners.tolist() == [pytest.approx([row[name] for name in ("x0", "y0", "x1", "y1")], abs=1e-4)]
            assert found.labels == (row["truth"],)


def camtrap(folder, observations: list[dict], media: list[dict]) -> None:
    for name, rows in (("observations", observations), ("media", media)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*{key: 0 for row in rows for key in row}])
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("named", ["observations.csv", "datapackage.json", "."])
def test_the_tables_of_a_camtrap_dp_are_joined(tmp_path, named):
    box = {"bboxX": 0.1, "bboxY": 0.2, "bboxWidth": 0.3, "bboxHeight": 0.4}
    camtrap(tmp_path, [
        {"observationID": 1, "mediaID": "m1", "observationType": "animal", "scientificName": "Lepus europaeus", **box},
        {"observationID": 2, "mediaID": "m1", "observationType": "human", **box}, {"observationID": 3, "mediaID": "m2", "observationType": "blank"},
        {"observationID": 4, "mediaID": "m3", "observationType": "animal"}, {"observationID": 5, "mediaID": "", "observationType": "animal"},
        {"observationID": 6, "mediaID": "gone", "observationType": "animal", **box},
    ], [{"mediaID": f"m{k}", "filePath": f"media/A/{k}.jpg", "fileName": f"{k}.jpg"} for k in (1, 2, 3)]
       + [{"mediaID": "m4", "filePath": "https://x.org/assets/7/file", "fileName": "4.jpg"}])  # fmt: skip
    (tmp_path / "datapackage.json").write_text('{"profile": "https://camtrap-dp", "resources": []}')
    given = read_boxes(tmp_path / named)
    found = given.find(PHOTO, {"path": "A/1.jpg"})
    assert found.corners.tolist() == pytest.approx(np.array(EDGES * 2), abs=1e-6) and set(found.labels) == {"Lepus europaeus", "human"}
    assert len(given.find(PHOTO, {"path": "A/2.jpg"})) == 0 and given.sees_people
    for name in ("A/3.jpg", "4.jpg"):  # an animal without a box, and a medium without an observation
        with pytest.raises(NotKnown, match="no box"):
            given.find(PHOTO, {"path": name})
    before = given.sha256
    camtrap(tmp_path, [{"mediaID": "m1", "observationType": "animal", **box}], [{"mediaID": "m1", "filePath": "b.jpg"}])
    assert read_boxes(tmp_path / named).sha256 != before


def test_a_camtrap_dp_without_its_media_is_one_sentence(tmp_path):
    (tmp_path / "observations.csv").write_text("mediaID,bboxX,bboxY,bboxWidth,bboxHeight\nm1,0,0,1,1\n")
    with pytest.raises(UserError, match="media.csv cannot be read"):
        read_boxes(tmp_path)


@pytest.mark.parametrize("text", [
    "path,x0,y0,x1,y1\na.jpg,0.1,0.2,0.4,0.6\n", "\ufeffFile;x0\n".replace("File;x0", "file;x0;y0;x1;y1") + "a.jpg;0,1;0,2;0,4;0,6\n",
    "filename\tx0\ty0\tx1\ty1\tbox_score\tbox_label\r\na.jpg\t0.1\t0.2\t0.4\t0.6\t0.5\tperson\r\n",
])  # fmt: skip
def test_a_csv_in_our_words_is_read(tmp_path, text):
    given = opened(tmp_path, text, "boxes.csv")
    found = given.find(PHOTO, {"path": "cam/a.jpg"})
    assert found.corners.tolist() == pytest.approx(np.array(EDGES), abs=1e-6)
    assert (found.scores[0], found.labels[0], given.sees_people) == ((0.5, "person", True) if "person" in text else (1, "animal", False))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_our_own_predictions_are_read_back(tmp_path, ending):
    box = dict(zip(("x0", "y0", "x1", "y1"), EDGES[0], strict=True))
    rows = [
        {"path": "a.jpg", "status": "ok", "box": 1, "box_score": 0.8, "label": "Aves", "score": 0.3, **box},
        {"path": "a.jpg", "status": "ok", "box": 2, "box_score": 0.7, "code": "person", "abstained": True, **box},
        {"path": "b.jpg", "status": "ok", "code": "no-animal", "abstained": True},
        {"path": "c.jpg", "status": "cut-short", "reason": "c.jpg is cut short."}, {"path": "d.jpg", "status": "ok", "label": "Aves"},
        {"path": "card.zip", "member": "DCIM/1.jpg", "status": "ok", "box": 1, "box_score": 0.9, **box},
        {"path": "=1+1.jpg", "status": "ok", "code": "no-animal"}, {"path": "film.mp4", "seconds": 2.0, "status": "ok", "box": 1, **box},
        {"path": r"B\xe4r.jpg", "status": "ok", "code": "no-animal"},
    ]  # fmt: skip
    write_predictions(predictions_table(rows, tmp_path, ["Aves"]), tmp_path / f"boxes{ending}")
    given = read_boxes(tmp_path / f"boxes{ending}")
    found = given.find(PHOTO, {"path": "a.jpg"})
    assert found.labels == ("Aves", "person") and found.scores.tolist() == pytest.approx([0.8, 0.7]) and given.sees_people
    assert found.corners.tolist() == pytest.approx(np.array(EDGES * 2), abs=1e-6)
    for name in ("b.jpg", "=1+1.jpg", r"B\xe4r.jpg"):
        assert len(given.find(PHOTO, {"path": name})) == 0
    for name, said in (("c.jpg", "cut short"), ("d.jpg", "no box"), ("film.mp4", "films")):
        with pytest.raises(NotKnown, match=said):
            given.find(PHOTO, {"path": name})
    assert len(given.find(PHOTO, {"path": "card.zip", "member": "DCIM/1.jpg"})) == len(given.find(PHOTO, {"path": "DCIM/1.jpg"})) == 1


def test_a_photo_in_a_zip_archive_is_found_under_its_name_in_it(tmp_path):
    given = opened(tmp_path, megadetector({"file": "cards/A/1.jpg", "detections": [BOX]}))
    assert len(given.find(PHOTO, {"path": "any.zip", "member": "A/1.jpg"})) == 1


def test_the_longest_common_end_of_the_paths_decides(tmp_path):
    paths = [r"D:\cards\north\1.JPG", r"D:\cards\south\1.JPG", "2.JPG", "south/2.JPG", "Fu\u0308chse/3.JPG", "thenorth/4.JPG"]
    given = opened(tmp_path, megadetector(*({"file": path, "detections": [BOX] * k} for k, path in enumerate(paths, 1))))
    count = lambda path: len(given.find(PHOTO, {"path": path}))  # noqa: E731
    assert count("north/1.JPG") == 1 and count("cards/south/1.JPG") == 2 and count("a/b/south/2.JPG") == 4 and count("north/2.JPG") == 3
    assert count("F\u00fcchse/3.JPG") == 5 and count("D:/cards/north/1.JPG") == 1
    with pytest.raises(NotKnown, match="2 entries.*higher folder"):
        count("1.JPG")
    for path in ("north/4.JPG", "nor/1.JPG", "west/1.JPG", "x1.JPG", "JPG", "1.jpg"):
        with pytest.raises(NotKnown, match="is not in"):
            count(path)


def test_an_entry_that_fits_two_photos_fits_neither(tmp_path):
    given = opened(tmp_path, megadetector({"file": "1.JPG", "detections": [BOX]}, {"file": "2.JPG", "detections": []}))
    said = match(given, [{"path": "a/1.JPG"}, {"path": "b/1.JPG"}, {"path": "a/2.JPG"}, {"path": "a/3.JPG"}])
    assert said == Matches(known=1, failed=0, unclear=2, missing=1, example="a/3.JPG")
    assert "Of 4 photos, 1 have their boxes" in said.sentence() and "a/3.JPG" in said.sentence() and "2 not clear" in said.sentence()
    for path in ("a/1.JPG", "b/1.JPG"):
        with pytest.raises(NotKnown, match="name of another photo"):
            given.find(PHOTO, {"path": path})
    assert len(given.find(PHOTO, {"path": "a/2.JPG"})) == 0


def test_a_file_of_other_photos_is_one_sentence_with_a_path_of_each(tmp_path):
    given = opened(tmp_path, megadetector({"file": "D:/cards/fox.jpg", "detections": []}))
    with pytest.raises(UserError, match="names other photos: it has D:/cards/fox.jpg, but the photos here are like north/owl.jpg"):
        match(given, [{"path": "north/owl.jpg"}, {"path": "north/tit.jpg"}])
    assert match(given, []) == Matches(0, 0, 0, 0, "")


BAD = [float("nan"), float("inf"), -1e300, 1e300, 10**400, "wide", None, True, [1], {}]


def test_bad_boxes_are_left_out_and_those_across_the_edge_are_cut(tmp_path):
    boxes = [[odd if k == place else 0.5 for k in range(4)] for odd in BAD for place in range(4)]
    boxes += [[0.5, 0.5, 0, 0.2], [0.5, 0.5, -0.1, 0.2], [2, 2, 0.1, 0.1], [0.5], [], [0.1, 0.2, 0.3, 0.4]]
    found = opened(tmp_path, megadetector({"file": "a.jpg", "detections": [{**BOX, "bbox": box} for box in boxes]})).find(PHOTO, {"path": "a.jpg"})
    assert np.allclose(found.corners[-1], EDGES[0])
    assert (found.corners[:, 2:] > found.corners[:, :2]).all() and found.corners.min() >= 0 and found.corners.max() <= 1
    assert len(found) < 8
    across = opened(tmp_path, megadetector({"file": "a.jpg", "detections": [{**BOX, "bbox": [-0.2, 0.5, 0.5, 0.9]}]}))
    assert edges(across, "a.jpg") == pytest.approx(np.array([[0, 0.5, 0.3, 1]]), abs=1e-6)


@pytest.mark.parametrize("score", [float("nan"), "sure", None, [0.5]])
def test_a_box_without_a_score_that_is_a_number_is_left_out(tmp_path, score):
    given = opened(tmp_path, megadetector({"file": "a.jpg", "detections": [{**BOX, "conf": score}, BOX]}))
    assert given.find(PHOTO, {"path": "a.jpg"}).scores.tolist() == pytest.approx([0.9])


def test_ten_thousand_boxes_of_one_photo_become_three_hundred(tmp_path):
    many = [{**BOX, "conf": k / 10_000} for k in range(10_000)]
    found = opened(tmp_path, megadetector({"file": "a.jpg", "detections": many})).find(PHOTO, {"path": "a.jpg"})
    assert len(found) == 300 and found.scores.min() > 0.96


@pytest.mark.parametrize(("text", "said"), [
    ("", "has no columns"), ("{", "cannot be read"), ('{"images": [{"file": "a.jpg"', "cannot be read"), ("[1, 2", "cannot be read"),
    ('{"images": [1], "detection_categories": {}}', "cannot be read"), ('{"images": [{"file": "a", "detections": [3]}], "detection_categories": {}}', "cannot be read"),
    ('{"images": {}, "annotations": [], "categories": []}', "lacks 'id'"), ('{"shapes": [], "imagePath": "a.jpg"}', "it has imagePath, shapes"),
    ("{}", "it has no members"), ("[]", "it has no members"), ('"text"', "has no columns"), ("[" * 100_000, "cannot be read"),
    ('{"images": [' + '{"a":' * 100_000, "cannot be read"), ("path,label\na.jpg,fox\n", "it has path, label"),
    ("path,x0,y0,x1\na.jpg,0,0,1\n", "no columns path, x0, y0, x1 and y1"), ("path,x0,y0,x1,y1\na.jpg,81,88,522,408\n", "boxes in pixels"),
    ("path,x0,y0,x1,y1\n", "names no photo"), (json.dumps(megadetector(info={"format_version": "2.0"})), "format 2.0"),
    (json.dumps(megadetector()), "names no photo"), (json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "categories": []}), "neither"),
    (json.dumps({"images": [{"id": 1}], "annotations": [], "categories": []}), "cannot be read"), ("\0\0\0", "no text"),
    (json.dumps({"images": [{"file": "a.jpg", "detections": []}]}), "neither"),
    (json.dumps(megadetector({"file": "a.jpg", "detections": [{**BOX, "bbox": [81, 88, 441, 320]}]})), "boxes in pixels"),
])  # fmt: skip
def test_what_is_not_recognised_is_one_sentence(tmp_path, text, said):
    for name in ("boxes.json", "boxes.csv"):  # the name decides nothing
        with pytest.raises(UserError, match=said) as error:
            opened(tmp_path, text, name)
        assert str(error.value).endswith((".", "?")) and "\n" not in str(error.value) and len(str(error.value)) < 700


def test_parquet_without_boxes_a_missing_file_and_a_huge_one_are_one_sentence(tmp_path, monkeypatch):
    write_table(pa.table({"path": ["a.jpg"], "label": ["fox"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 broken")
    (tmp_path / "c.json").write_text(json.dumps(megadetector({"file": "a.jpg", "detections": []})))
    monkeypatch.setattr(box_file, "MOST_BYTES", 50)
    for name, said in (("c.json", "may have 50 bytes"), ("gone.json", "cannot be read")):
        with pytest.raises(UserError, match=said):
            read_boxes(tmp_path / name)
    monkeypatch.undo()
    for name, said in (("a.parquet", "no columns"), ("b.parquet", "cannot be read as Parquet")):
        with pytest.raises(UserError, match=said):
            read_boxes(tmp_path / name)


def test_a_job_can_send_the_boxes_to_other_processes(tmp_path):
    given = opened(tmp_path, megadetector({"file": "a.jpg", "detections": [BOX]}))
    there = pickle.loads(pickle.dumps(given))
    assert edges(there, "a.jpg") == edges(given, "a.jpg") and there.sha256 == given.sha256 == read_box_file(given.path)[1]


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="memory is measured on Unix only")
def test_many_photos_need_little_memory(tmp_path):
    box = {"category": "1", "conf": 0.5, "bbox": [0.1, 0.2, 0.3, 0.4]}
    images = [{"file": f"D:\\cards\\camera {k // 1000}\\IMG_{k % 1000:04}.JPG", "detections": [box] * 3} for k in range(40_000)]
    (tmp_path / "md.json").write_text(json.dumps(megadetector(*images)))
    code = (
        "import resource, sys; from species_wb.detect.given import read_boxes; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "before = peak(); given = read_boxes(sys.argv[1]); print(len(given.file.scores), (peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "md.json")], capture_output=True, text=True, check=True)
    boxes, megabytes = map(int, done.stdout.split())
    assert boxes == 120_000 and megabytes < 85, megabytes  # json.loads alone needs 110
    assert math.isclose((tmp_path / "md.json").stat().st_size, 11e6, rel_tol=0.2)
