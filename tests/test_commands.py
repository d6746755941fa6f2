"""The other commands around a model file, as a person types them."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request

import pytest
from test_job import card, coloured, rows
from test_cli import BIN, one_sentence, typed

from species_wb.engine import toy


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def model(tmp_path):
    return toy.write_toy(tmp_path / "toy.onnx", ids=(7, 3))


def test_a_submission_has_a_line_for_every_photo(tmp_path, model):
    folder = card(tmp_path / "test", 9)
    (folder / "cut.jpg").write_bytes(coloured("red")[:200])
    done = typed("submit", model, folder, "--out", tmp_path / "submission.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "submission.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["Image_ID", "Label"] and len(lines) == 10
    found = {row["Image_ID"]: row["Label"] for row in lines}
    assert found == {**{f"IMG_{k:05}": "7" if k % 3 else "3" for k in range(9)}, "cut": "7"}
    assert "could not be read" in done.stdout and "most frequent answer" in done.stdout
    assert typed("submit", model, folder, "--out", tmp_path / "submission.csv").returncode == 0  # and again
    other = toy.write_toy(tmp_path / "b.onnx")
    assert "another model" in one_sentence(typed("submit", other, folder, "--out", tmp_path / "submission.csv"))


def test_a_sample_decides_ids_and_order(tmp_path, model):
    folder = card(tmp_path / "test", 3)
    (tmp_path / "sample.csv").write_text("id,class\nIMG_00002.JPG,red\nIMG_00000.JPG,red\nlost.JPG,red\n")
    done = typed("submit", model, folder, "--sample", tmp_path / "sample.csv", "--out", tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "id,class\nIMG_00002.JPG,red\nIMG_00000.JPG,green\nlost.JPG,red\n"
    assert "1 sample id without a photo" in done.stdout and "not in the sample" in done.stdout


def test_copies_are_sorted_and_originals_stay(tmp_path, model):
    folder = card(tmp_path / "card", 6)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    done = typed("classify", folder, "--model", model, "--out", tmp_path / "a.csv", "--copy-to", tmp_path / "sorted")
    assert done.returncode == 0 and {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    found = sorted(p.relative_to(tmp_path / "sorted").as_posix() for p in (tmp_path / "sorted").rglob("*.JPG"))
    assert found == sorted(f"{'red' if k % 3 else 'green'}/100MEDIA/IMG_{k:05}.JPG" for k in range(6))


def test_a_score_below_the_least_is_left_open_without_classifying_again(tmp_path, model):
    folder = card(tmp_path / "card", 6)
    assert typed("classify", folder, "--model", model, "--out", tmp_path / "a.csv").returncode == 0
    words = ["classify", folder, "--model", model, "--out", tmp_path / "a.csv"]
    done = typed(*words, "--min-score", "0.9999", "--top", "1")
    found = rows(tmp_path / "a.csv")
    assert "6 of 6 files were classified already" in done.stdout
    assert all(r["label"] == "" and r["abstained"] == "TRUE" and r["label_raw"] in ("red", "green") for r in found)
    assert all(r["rule"] == "min-score 0.9999" and "|" not in r["top"] for r in found)


def test_megadetectors_json_is_written(tmp_path, model):
    typed("classify", card(tmp_path / "card", 3), "--model", model, "--out", "a.json", cwd=tmp_path)
    said = json.loads((tmp_path / "a.json").read_text())
    assert {"info", "detection_categories", "classification_categories", "images"} <= set(said)
    assert len(said["images"]) == 3
    assert said["classification_categories"][said["images"][0]["detections"][0]["classifications"][0][0]] == "green"


def test_a_film_has_a_row_for_each_frame(tmp_path, model):
    pytest.importorskip("av")
    from test_video import write_film

    write_film(tmp_path / "a.mp4", seconds=4.0)
    (tmp_path / "void.mp4").touch()
    out = tmp_path / "out" / "a.csv"
    done = typed("classify", tmp_path, "--model", model, "--every", "0.5", "--out", out, cwd=tmp_path)
    names = ("a.mp4", "void.mp4", "toy.onnx")
    found = {name: [r for r in rows(out) if r["path"].endswith(name)] for name in names}
    seconds = [float(r["seconds"]) for r in found["a.mp4"]]
    assert done.returncode == 0 and seconds == pytest.approx([k / 2 for k in range(8)], abs=0.06)
    assert {r["status"] for r in found["a.mp4"]} == {"ok"} and {r["label"] for r in found["a.mp4"]} == {"red", "green"}
    assert [r["status"] for r in found["void.mp4"]] == ["empty"]
    assert [r["status"] for r in found["toy.onnx"]] == ["not-a-photo"]


def test_the_ready_made_model_is_used_where_none_is_named(tmp_path, photos, ready_made_cache):
    shutil.copytree(ready_made_cache, tmp_path / "cache")
    photo = sorted((photos / "test" / "Aves").iterdir())[0]
    done = typed("classify", photo)
    assert done.returncode == 0 and done.stdout.startswith("Aves") and done.stderr == ""
    assert typed("export", "ready-made", "--out", tmp_path / "for a laptop.onnx").returncode == 0
    assert typed("classify", photo, "--model", tmp_path / "for a laptop.onnx").stdout == done.stdout
    assert "--int8" in one_sentence(typed("export", tmp_path / "for a laptop.onnx"))
    assert typed("submit", "ready-made", photos / "test" / "Aves", "--out", tmp_path / "s.csv").returncode == 0


@pytest.mark.slow
def test_the_ready_made_model_is_made_at_its_first_use_and_that_is_said(tmp_path, photos):
    photo = sorted((photos / "test" / "Aves").iterdir())[0]
    done, again = typed("classify", photo), typed("classify", photo)
    assert done.returncode == 0 and done.stdout.startswith("Aves") and "ready-made" in done.stderr
    assert again.stdout == done.stdout and again.stderr == ""


@pytest.mark.slow
def test_the_ready_made_model_reaches_its_accuracy_on_real_photos(tmp_path, photos):
    from species_wb.metrics.intervals import wilson

    done = typed("classify", photos / "test", "--out", tmp_path / "a.csv")
    found = rows(tmp_path / "a.csv")
    right = sum(r["label"] == r["path"].split("/")[-2] for r in found)
    low, high = wilson(right, len(found))
    assert done.returncode == 0 and len(found) == 293 and low <= 0.90 <= high, (right, low, high)


def test_watch_goes_on_until_it_is_stopped(tmp_path, model):
    pytest.importorskip("watchdog")
    folder = card(tmp_path / "card", 2)
    tables = ["--out", tmp_path / "w.csv", "--observations", tmp_path / "o.csv"]
    words = [*map(str, [BIN / "species-wb", "watch", folder, "--model", model, *tables])]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.time() + 60
        while time.time() < end and (not (tmp_path / "w.csv").exists() or len(rows(tmp_path / "w.csv")) < 2):
            time.sleep(0.1)
        shutil.copy(folder / "100MEDIA" / "IMG_00001.JPG", folder / "new.jpg")
        while time.time() < end and len(rows(tmp_path / "w.csv")) < 3:
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and "new.jpg" in said and "Traceback" not in errors, errors
    assert len(rows(tmp_path / "w.csv")) == 3 and len(rows(tmp_path / "o.csv")) >= 2


def test_serve_answers_a_photo(tmp_path, model):
    pytest.importorskip("fastapi")
    words = [str(BIN / "species-wb"), "serve", "--model", str(model), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        request = urllib.request.Request(f"{address}/classify?name=a.jpg", data=coloured("green"))
        for _ in range(100):
            try:
                answer = json.load(urllib.request.urlopen(request, timeout=10))
                break
            except ConnectionError:
                time.sleep(0.1)
            except urllib.error.URLError:
                time.sleep(0.1)
        assert answer["label"] == "green"
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors


def test_the_shell_can_complete_words():
    asked = {"_SPECIES_WB_COMPLETE": "complete_bash", "COMP_WORDS": "species-wb cla", "COMP_CWORD": "1"}
    done = subprocess.run([BIN / "species-wb"], capture_output=True, text=True, env={**os.environ, **asked})
    assert "classify" in done.stdout.split()


def test_a_model_named_by_nothing_is_refused(tmp_path):
    assert one_sentence(typed("classify", tmp_path, "--model", "")).startswith("The name of a model is empty")
