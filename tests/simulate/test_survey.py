"""The simulated survey: the same bytes for the same seed, and a truth that is true."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import species_wb.simulate.scene as drawing
import species_wb.simulate.survey as simulation
from species_wb.contracts import manifest_root, read_manifest
from species_wb.core import UserError
from species_wb.simulate.ecology import ECOLOGY, Parameters, truth_parameters
from species_wb.simulate.scene import scene
from species_wb.simulate.scenery import daylight
from species_wb.simulate.survey import default_photos, survey
from species_wb.simulate.visits import plan

SMALL = {"photos": 60, "size": 48}


def photo_of(planned: dict, i: int) -> dict:
    return {name: column[i].item() for name, column in planned.items()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, list[dict]]:
    "One small survey with everything switched on, and its manifest's rows."
    folder = tmp_path_factory.mktemp("survey") / "photos"
    table = survey(folder, **SMALL, label_noise=0.2, night=0.25, blur=0.3, new_sites=2)
    return folder, table.to_pylist()


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path):
    mine = survey(tmp_path / "a", photos=12, size=40, seed=5)
    code = (
        "import sys; from species_wb.simulate.survey import survey; "
        "print(*survey(sys.argv[1], photos=12, size=40, seed=5)['sha256'].to_pylist())"
    )
    command, env = [sys.executable, "-c", code, str(tmp_path / "b")], os.environ | {"PYTHONHASHSEED": "7"}
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert other.stdout.split() == mine["sha256"].to_pylist()
    assert mine.drop_columns("path").equals(survey(tmp_path / "b", photos=12, size=40, seed=5).drop_columns("path"))


def test_a_photo_does_not_depend_on_what_was_drawn_before():
    p = Parameters(photos=12, size=40)
    planned = plan(p)
    forwards = [scene(p, photo_of(planned, i))[0].tobytes() for i in range(12)]
    drawing._ground.cache_clear()
    backwards = [scene(p, photo_of(planned, i))[0].tobytes() for i in reversed(range(12))]
    assert forwards == backwards[::-1]


def test_another_seed_gives_other_photos(tmp_path):
    a, b = (survey(tmp_path / str(seed), photos=12, size=40, seed=seed) for seed in (0, 1))
    assert not set(a["sha256"].to_pylist()) & set(b["sha256"].to_pylist())


def test_truth_and_files_match_one_to_one(drawn):
    folder, rows = drawn
    assert sorted(r["path"] for r in rows) == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg"))
    assert len(rows) == SMALL["photos"] and {r["status"] for r in rows} == {"ok"}
    assert {r["source"] for r in rows} == {"simulated"}
    for row in rows:
        data = (folder / row["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"] and row["path"].startswith(row["label"] + "/")
        assert row["split"] is None
        with Image.open(folder / row["path"]) as image:
            assert image.size == (row["width"], row["height"]) == (48, 48) and image.mode == "RGB"
    assert "simulated" in (folder / "README.txt").read_text()
    assert len((folder / "README.txt").read_text().splitlines()) == 2


def test_exif_says_what_the_manifest_says(drawn):
    folder, rows = drawn
    for row in rows[:20]:
        with Image.open(folder / row["path"]) as image:
            exif = image.getexif()
        taken, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert datetime.strptime(taken[0x9003], "%Y:%m:%d %H:%M:%S").isoformat() == row["taken_at"]
        assert 0x9011 not in taken
        for name, reference, value, positive in (("lat", 1, 2, "N"), ("lon", 3, 4, "E")):
            degrees = sum(float(part) / 60**n for n, part in enumerate(place[value])) * (1 if place[reference] == positive else -1)
            assert degrees == pytest.approx(row[name], abs=5e-8)
        assert exif[0x010E] == "simulated" and exif[0x0131] == "species_wb simulate"


@pytest.mark.parametrize("lat", [-33.123456, 0.0, 59.999999, 12.5])
def test_exif_keeps_places_south_and_west_and_never_writes_sixty_seconds(lat):
    exif = Image.Exif()
    exif.load(simulation._exif("2025-03-01T00:00:00", lat, -lat))
    place = exif.get_ifd(0x8825)
    parts = [float(v) for v in place[2]]
    assert parts[1] < 60 and parts[2] < 60
    assert sum(v / 60**n for n, v in enumerate(parts)) == pytest.approx(abs(lat), abs=5e-8)
    assert (place[1], place[3]) == (("N", "E") if lat == 0 else ("N", "W") if lat > 0 else ("S", "E"))


@pytest.mark.parametrize("extra", [{}, {"blur": 1.0}, {"difficulty": 0.8}])
def test_the_box_holds_the_animal_and_no_more(extra):
    p = Parameters(photos=40, size=128, **extra)
    planned = plan(p)
    for i in range(0, 40, 3):
        photo = photo_of(planned, i)
        (picture, facts), (empty, _) = scene(p, photo), scene(p, photo, animal=False)
        changed = np.abs(picture.astype(int) - empty).max(2) > 25
        rows, columns = np.nonzero(changed)
        shadow = 0.05  # it falls to the lower right
        inside = (columns / 128 >= facts["x0"] - 0.02) & (columns / 128 <= facts["x1"] + shadow) & (rows / 128 >= facts["y0"] - 0.02) & (rows / 128 <= facts["y1"] + shadow)
        assert inside.all(), (i, photo)
        assert 0 <= facts["x0"] < facts["x1"] <= 1 and 0 <= facts["y0"] < facts["y1"] <= 1
        opacity = drawing._animal(p, photo)[..., 3] > 0.1
        assert opacity.any(1).nonzero()[0][[0, -1]].tolist() == [round(facts["y0"] * 128), round(facts["y1"] * 128) - 1]
        assert opacity.any(0).nonzero()[0][[0, -1]].tolist() == [round(facts["x0"] * 128), round(facts["x1"] * 128) - 1]


def test_switches_touch_exactly_the_share_asked_for(drawn):
    _, rows = drawn
    wrong = [r for r in rows if r["label"] != r["truth"]]
    assert len(wrong) == 12 and sum(r["blur"] > 0 for r in rows) == 18
    assert 0.25 * 60 - 4 < sum(r["night"] for r in rows) <= 15  # whole bursts
    planned = plan(Parameters(photos=5000, night=0.3))
    hour = planned["second"] % 86400 / 3600
    assert daylight(hour[planned["night"]]).max() <= daylight(hour[~planned["night"]]).min() + 2e-3  # the darkest first
    plain = plan(Parameters(photos=500))
    assert (plain["label"] == plain["taxon"]).all() and not plain["night"].any() and not plain["blur"].any()


def test_night_photos_are_grey(drawn):
    folder, rows = drawn
    for row in rows:
        with Image.open(folder / row["path"]) as image:
            colourful = np.ptp(np.asarray(image).astype(int), axis=2).mean()
        assert colourful < 2 if row["night"] else colourful > 2, row["path"]


def test_bursts_are_near_duplicates_in_time_and_place():
    p = Parameters(photos=400, size=64)
    planned = plan(p)
    for event in np.unique(planned["event"]):
        mine = np.flatnonzero(planned["event"] == event)
        assert 1 <= len(mine) <= 4 and len({(planned["site"][i], planned["taxon"][i]) for i in mine}) == 1
        assert planned["frame"][mine].tolist() == list(range(len(mine)))
        assert (np.diff(planned["second"][mine]) >= 2).all() and np.ptp(planned["second"][mine]) <= 15
    for i in np.flatnonzero(planned["frame"] == 1)[:12]:
        before, after = (photo_of(planned, int(j)) for j in (i - 1, i))
        assert (drawing._empty(p, before) == drawing._empty(p, after)).all()
        (a, here), (b, there) = scene(p, before), scene(p, after)
        moved = np.abs(np.subtract([here[n] for n in ("x0", "y0", "x1", "y1")], [there[n] for n in ("x0", "y0", "x1", "y1")])).max()
        assert a.tobytes() != b.tobytes() and moved < 0.15 and here["weather"] == there["weather"]


def test_new_sites_are_disjoint(drawn):
    _, rows = drawn
    new, old = ({r["site"] for r in rows if r["new_site"] == flag} for flag in (True, False))
    assert new and old and not new & old
    truth = truth_parameters(**SMALL, new_sites=2)
    assert new <= {n for n, s in truth["sites"].items() if s["new"]}
    assert sum(s["new"] for s in truth["sites"].values()) == 2


def test_difficulty_changes_the_pictures_and_not_the_plan():
    easy, hard = (Parameters(photos=100, size=64, difficulty=d) for d in (0.0, 1.0))
    for name, column in plan(easy).items():
        assert (plan(hard)[name] == column).all(), name
    planned = plan(easy)
    facts = {p.difficulty: [scene(p, photo_of(planned, i))[1] for i in range(0, 100, 4)] for p in (easy, hard)}
    area = {d: np.mean([(f["x1"] - f["x0"]) * (f["y1"] - f["y0"]) for f in rows]) for d, rows in facts.items()}
    hidden = {d: np.mean([f["hidden"] for f in rows]) for d, rows in facts.items()}
    assert area[0.0] > 3 * area[1.0] and hidden[0.0] < hidden[1.0] / 2


def test_classes_are_mildly_uneven_and_sites_differ():
    planned = plan(Parameters(photos=1000))
    counts = np.bincount(planned["taxon"], minlength=10)
    assert counts.sum() == 1000 and counts.min() > 55 and 1.2 < counts.max() / counts.min() < 2.5
    per_site = np.array([np.bincount(planned["taxon"][planned["site"] == s], minlength=10) / (planned["site"] == s).sum() for s in range(6)])
    assert np.ptp(per_site, axis=0).mean() > 0.05
    assert set(plan(Parameters(photos=10))["taxon"]) == set(range(len(ECOLOGY)))


def test_the_laws_can_be_found_again():
    p = Parameters(photos=30_000, start="2025-01-01", days=365)
    planned, truth = plan(p), truth_parameters(photos=30_000, start="2025-01-01", days=365)
    latitude = np.array([s["lat"] for s in truth["sites"].values()])
    for n, (taxon, law) in enumerate(truth["taxa"].items()):
        mine = (planned["taxon"] == n) & (planned["frame"] == 0)
        day, hour = planned["second"][mine] // 86400, planned["second"][mine] % 86400 / 3600
        turn = np.angle(np.exp(2j * np.pi * (day + 1) / 365.25).mean()) / (2 * np.pi) * 365.25 % 365.25
        assert abs(turn - law["peak_day"]) < 8, (taxon, turn)
        if len(law["peak_hours"]) == 1:
            middle = np.angle(np.exp(2j * np.pi * hour / 24).mean()) / (2 * np.pi) * 24 % 24
            assert abs(middle - law["peak_hours"][0]) < 0.75, (taxon, middle)
        if law["start_lat"] is not None:
            seen, expected = latitude[planned["site"][mine]], np.array(truth["mean_latitude"][taxon])[day]
            common = np.array([s["abundance"][taxon] for s in truth["sites"].values()])
            weights = common * np.exp(-(((latitude - law["start_lat"] - law["degrees_per_day"] * day[:, None]) / law["spread_lat"]) ** 2) / 2)
            near = weights.sum(1) > 1e-4  # where the bell curve itself decides
            assert np.allclose(expected[near], (weights @ latitude / weights.sum(1))[near], atol=1e-3)
            assert abs((seen - expected).mean()) < 0.2
            slopes = [np.polyfit(day, values, 1)[0] for values in (seen, expected)]
            assert slopes[0] == pytest.approx(slopes[1], abs=0.003)
            assert np.sign(slopes[0]) == np.sign(law["degrees_per_day"])


def test_a_finished_survey_is_returned_without_drawing(tmp_path, monkeypatch):
    first = survey(tmp_path / "a", photos=10, size=32)
    monkeypatch.setattr(simulation, "scene", None)
    assert survey(tmp_path / "a", photos=10, size=32).equals(first, check_metadata=True)
    shutil.move(tmp_path / "a", tmp_path / "moved")
    assert manifest_root(survey(tmp_path / "moved", photos=10, size=32)) == str((tmp_path / "moved").resolve())
    with pytest.raises(UserError, match="other parameters"):
        survey(tmp_path / "moved", photos=10, size=32, seed=1)


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        with pytest.raises(UserError, match="something else"):
            survey(tmp_path / name, photos=10, size=32)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "mine", "notes.txt"]
    (tmp_path / "empty").mkdir()
    assert len(survey(tmp_path / "empty", photos=10, size=32)) == 10


def test_what_appears_in_the_folder_meanwhile_is_left_alone(tmp_path, monkeypatch):
    draw = simulation.scene

    def somebody_writes(*arguments, **named):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / "notes.txt").write_text("mine")
        return draw(*arguments, **named)

    monkeypatch.setattr(simulation, "scene", somebody_writes)
    with pytest.raises(UserError, match="something else"):
        survey(tmp_path / "a", photos=10, size=32)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["notes.txt"] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_survey_leaves_nothing(tmp_path, monkeypatch, error):
    draw, count = simulation.scene, iter(range(100))

    def stops(*arguments, **named):
        if next(count) == 4:
            raise error
        return draw(*arguments, **named)

    monkeypatch.setattr(simulation, "scene", stops)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt):
        survey(tmp_path / "a", photos=10, size=32)
    assert list(tmp_path.iterdir()) == []


def test_default_photos_live_in_the_cache(workspace):
    folder = default_photos(photos=10, size=32)
    assert folder.is_relative_to(workspace / ".cache" / "simulated")
    assert len(read_manifest(folder / "manifest.parquet")) == 10
    assert default_photos(photos=10, size=32, difficulty=Parameters().difficulty) == folder != default_photos(photos=10, size=32, seed=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"photos": 9}, {"size": 31}, {"size": 2049}, {"difficulty": -0.1}, {"label_noise": 1.01},
        {"night": float("nan")}, {"sites": 0}, {"sites": "six"}, {"new_sites": 7}, {"blur": "much"},
        {"seed": -1}, {"photos": True}, {"start": "1st of March"}, {"days": 0}, {"difficult": 0.5}, {"empty": 1.1}, {"false_object": -1},
    ],
)
def test_parameters_that_cannot_be_are_one_sentence(tmp_path, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        survey(tmp_path / "a", **wrong)
    assert not (tmp_path / "a").exists()


def test_extremes_are_drawn(tmp_path):
    every = {"size": 32, "night": 1.0, "blur": 1.0, "label_noise": 1.0, "sites": 1, "days": 1}
    for name, extreme in {"tiny": {"size": 32, "difficulty": 1.0}, "all": every}.items():
        rows = survey(tmp_path / name, photos=10, **extreme).to_pylist()
        assert len(rows) == 10 and all(r["x0"] < r["x1"] and r["y0"] < r["y1"] for r in rows)
    assert all(r["night"] and r["blur"] > 0 and r["label"] != r["truth"] and r["taken_at"].startswith("2025-03-01") for r in rows)


def test_the_boxes_are_coco_json_with_the_true_classes_and_corners(drawn):
    folder, rows = drawn
    boxes = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    photos, classes = ({one["id"]: one for one in boxes[name]} for name in ("images", "categories"))
    assert [one["file_name"] for one in photos.values()] == [row["path"] for row in rows] and "imulated" in boxes["info"]["description"]
    assert len(boxes["annotations"]) == len({one["id"] for one in boxes["annotations"]}) == len(rows)
    by_path = {row["path"]: row for row in rows}
    for one in boxes["annotations"]:
        row = by_path[photos[one["image_id"]]["file_name"]]
        x, y, width, height = one["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx([48 * row[name] for name in ("x0", "y0", "x1", "y1")], abs=2e-3)
        assert classes[one["category_id"]]["name"] == row["truth"] and one["area"] == pytest.approx(width * height, abs=2e-3)
        assert one["iscrowd"] == 0


def test_a_survey_that_was_drawn_before_there_were_boxes_gets_them(tmp_path):
    survey(tmp_path / "a", photos=10, size=32)
    before = (tmp_path / "a" / "boxes.json").read_bytes()
    (tmp_path / "a" / "boxes.json").unlink()
    survey(tmp_path / "a", photos=10, size=32)
    assert (tmp_path / "a" / "boxes.json").read_bytes() == before


def test_the_parameters_of_an_older_survey_are_still_its_own():
    assert set(simulation._made_with(Parameters())) == {
        "version", "photos", "size", "seed", "difficulty", "sites", "new_sites", "label_noise", "night", "blur", "start", "days"
    }  # fmt: skip
    assert simulation._made_with(Parameters(empty=0.1, false_object=0.3)).items() >= {"empty": 0.1, "false_object": 0.3}.items()


def test_empty_frames_are_whole_events_and_leave_all_other_photos_as_they_are(tmp_path):
    plain = {row["path"]: row for row in survey(tmp_path / "plain", **SMALL).to_pylist()}
    table = survey(tmp_path / "some", **SMALL, empty=0.3)
    rows = table.to_pylist()
    empty = [row for row in rows if row["truth"] == "Empty"]
    assert 18 - 4 < len(empty) <= 18 and {row["label"] for row in empty} == {"Empty"}
    assert {row["path"].split("/")[0] for row in empty} == {"Empty"} and all(row["x0"] is None for row in empty)
    assert not {row["event"] for row in empty} & {row["event"] for row in rows if row["truth"] != "Empty"}
    same = [row for row in rows if row["truth"] != "Empty"]
    assert all(row["sha256"] == plain[row["path"]]["sha256"] for row in same)
    boxes = json.loads((tmp_path / "some" / "boxes.json").read_text())
    assert len(boxes["images"]) == 60 and len(boxes["annotations"]) == len(same)


def test_an_empty_frame_shows_the_scene_without_its_animal():
    p = Parameters(photos=12, size=48, empty=1.0)
    planned = plan(p)
    assert planned["empty"].all()
    photo = photo_of(planned, 0)
    picture, facts = scene(p, photo)
    assert (picture == scene(p, photo | {"empty": False}, animal=False)[0]).all() and facts["x0"] is facts["hidden"] is None


def test_a_survey_of_empty_frames_alone_has_columns_of_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "CHUNK", 10)
    table = survey(tmp_path / "a", photos=30, size=32, empty=0.5)
    assert str(table.schema.field("x0").type) == "double"
    few = survey(tmp_path / "c", photos=30, size=32, false_object=0.2)  # no log in some of the chunks
    assert 0 < few["false_x0"].null_count < 30
    alone = survey(tmp_path / "b", photos=10, size=32, empty=1.0)
    assert json.loads((tmp_path / "b" / "boxes.json").read_text())["annotations"] == [] and len(alone) == 10


def test_a_false_object_lies_at_one_place_in_the_share_asked_for_and_before_one_camera(tmp_path):
    table = survey(tmp_path / "a", photos=120, size=64, sites=3, false_object=0.3, empty=0.3, difficulty=0.2)
    rows, plain = table.to_pylist(), survey(tmp_path / "b", photos=120, size=64, sites=3, empty=0.3, difficulty=0.2).to_pylist()
    with_log = [row for row in rows if row["false_x0"] is not None]
    (site,) = {row["site"] for row in with_log}
    assert len(with_log) == round(0.3 * sum(row["site"] == site for row in rows)) > 5
    (box,) = {tuple(row[f"false_{name}"] for name in ("x0", "y0", "x1", "y1")) for row in with_log}
    assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 and (box[2] - box[0]) * (box[3] - box[1]) > 0.01
    others = [(a["sha256"], b["sha256"]) for a, b in zip(rows, plain, strict=True) if a["false_x0"] is None]
    assert all(one == other for one, other in others)
    for a, b in zip(rows, plain, strict=True):
        if a["false_x0"] is not None:
            one, other = (np.asarray(Image.open(tmp_path / n / r["path"])).astype(int) for n, r in (("a", a), ("b", b)))
            changed = np.abs(one - other).max(2) > 40
            y, x = np.nonzero(changed)
            assert len(x) > 30 and x.min() / 64 > box[0] - 0.06 and x.max() / 64 < box[2] + 0.1, a["path"]
            assert y.min() / 64 > box[1] - 0.06 and y.max() / 64 < box[3] + 0.1
    assert len(json.loads((tmp_path / "a" / "boxes.json").read_text())["annotations"]) == sum(row["x0"] is not None for row in rows)


def test_the_same_seed_plants_the_same_object(tmp_path):
    a, b = (survey(tmp_path / name, photos=20, size=32, sites=1, false_object=0.5, empty=0.2) for name in "ab")
    assert a["sha256"].to_pylist() == b["sha256"].to_pylist() and plan(Parameters(sites=1, false_object=1.0))["false_object"].all()
    assert not plan(Parameters())["false_object"].any() and not plan(Parameters())["empty"].any()
