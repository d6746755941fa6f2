"""People see the name that they use beside the label, "Aves · birds"; tables for programs keep the label alone."""

import csv

import pytest
from test_job import card, coloured, typed

from species_wb.apps import camera_messages, web_answers
from species_wb.apps.web_access import LIMITS
from species_wb.classify import watch_tables
from species_wb.common_names import full_name, full_names, names_said
from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.taxa import CLASSES

GERMAN = "scientificName,vernacularName,language\nAves,Vögel,de\nAves,birds,en\nTurdus merula,Amsel,deu\n"


@pytest.fixture
def model(tmp_path):
    "A model file that calls red photos Aves and green ones Animalia."
    return toy.write_toy(tmp_path / "two.onnx", ("Aves", "Animalia"))


@pytest.fixture
def german(workspace, monkeypatch):
    "A workspace with a list of names in two languages, and a reader of German."
    (workspace / "vernacular_names.csv").write_text(GERMAN, encoding="utf-8")
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    return workspace / "vernacular_names.csv"


def test_each_of_the_ten_taxa_has_its_english_name_beside_it(workspace):
    assert [*full_names(CLASSES).values()] == [
        "Amphibia · amphibians", "Animalia · other animals", "Arachnida · arachnids", "Aves · birds", "Fungi",
        "Insecta · insects", "Mammalia · mammals", "Mollusca · molluscs", "Plantae · plants", "Reptilia · reptiles",
    ]  # fmt: skip


def test_animalia_means_other_animals_only_where_animals_stand_beside_it(workspace):
    assert full_name("Animalia", ["Animalia", "Fungi", "Plantae"]) == "Animalia · animals"
    assert full_name("Animalia", ["Animalia", "red fox"]) == "Animalia · other animals"
    assert full_name("animalia", ["animalia"]) == "animalia · animals"


def test_a_label_that_is_a_persons_own_word_or_a_species_without_a_list_stands_alone(workspace):
    labels = ["birds", "red fox", "Turdus_merula", "not sure", "none of these", ""]
    assert [*full_names(labels).values()] == labels
    assert full_name("n01440764") == "n01440764 · tench"


def test_a_list_gives_the_names_in_the_readers_language(german, monkeypatch):
    assert full_name("Turdus_merula") == "Turdus_merula · Amsel"
    assert full_names(["Aves", "Insecta"]) == {"Aves": "Aves · Vögel", "Insecta": "Insecta · insects"}
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert full_name("Aves") == "Aves · birds" and full_name("Turdus merula") == "Turdus merula"


@pytest.mark.parametrize("text", [
    "\ufeffdwc:scientificName;dwc:vernacularName\nTurdus merula Linnaeus, 1758;Amsel\n",
    "taxonID\tscientificName\tlanguage\tvernacularName\n9\tTurdus (Turdus) merula\tger\tAmsel\n9\tTurdus merula\tger\tx\n",
    "vernacularName,scientificName\r\nAmsel,turdus merula\r\n",
])
def test_lists_are_read_as_excel_and_darwin_core_archives_write_them(german, text):
    german.write_text(text, encoding="utf-8")
    assert full_name("Turdus merula") == "Turdus merula · Amsel" and full_name("Turdus") == "Turdus"


@pytest.mark.parametrize("data", [b"name,language\nAmsel,de\n", "scientificName,vernacularName\nA,ö".encode("latin-1"), b""])
def test_a_list_that_cannot_be_used_is_said_and_stops_nothing(german, data):
    german.write_bytes(data)
    assert full_name("Aves") == "Aves · birds"
    assert str(german) in (said := names_said(["Aves"])) and said.endswith(".")


def test_where_names_come_from_is_said_only_where_they_are_used(german):
    assert names_said(["Aves"]) == f"The common names (de) are from {german}." and names_said(["Insecta"]) == ""


def test_classify_shows_both_names_and_its_table_keeps_the_label(tmp_path, model, own_cache, german):
    folder, out = card(tmp_path / "card", 6), tmp_path / "a.csv"
    done = typed("classify", folder, "--model", model, "--out", out)
    lines = done.stdout.splitlines()
    assert sum(line == f"The common names (de) are from {german}." for line in lines) == 1
    assert any(line.split()[:4] == ["Aves", "·", "Vögel", "4"] for line in lines), done.stdout
    assert any(line.startswith("Animalia · other animals") for line in lines)
    with out.open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["label"] for row in found} == {"Aves", "Animalia"} and "Vögel" not in out.read_text(encoding="utf-8-sig")
    photo = folder / "100MEDIA" / "IMG_00001.JPG"
    said = typed("classify", photo, "--model", model).stdout.splitlines()
    assert said[0].startswith("Aves · Vögel               ") and said[1].startswith("Animalia · other animals  ")
    assert said[2] == f"The common names (de) are from {german}."


def test_submit_says_both_names_and_its_file_keeps_the_label(tmp_path, model, own_cache, german):
    folder = card(tmp_path / "card", 3)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = typed("submit", model, folder, "--out", tmp_path / "s.csv")
    assert "the most frequent answer, Aves · Vögel (2 of 3)" in done.stdout and str(german) in done.stdout
    assert {line.split(",")[1] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]} == {"0", "1"}


def test_a_check_names_small_classes_and_contradictions_by_both_names(tmp_path, own_cache, german):
    for k, label in enumerate(("Aves", "Aves", "Aves", "Insecta", "Mollusca")):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / label / f"{k}.jpg").write_bytes(coloured("red" if k % 2 else "green", k // 4))
    said = typed("photos", "check", tmp_path / "photos").stdout
    assert "2 classes with one photo: Insecta · insects, Mollusca · molluscs" in said
    assert "(Aves · Vögel)" in said and f"The common names (de) are from {german}." in said


def test_a_watch_names_what_it_sees_by_both_names(german):
    row = {"path": "a.jpg", "status": "ok", "label": "Aves", "label_raw": "Aves", "score_raw": 0.91}
    assert "  a.jpg  Aves · Vögel 0.91" in watch_tables.line(row)


def test_the_camera_panel_is_told_the_names(tmp_path, model, german):
    about = camera_messages.about(open_model(model, 1), "ready-made")
    assert about["common"] == {"Aves": "Vögel", "Animalia": "other animals"} and about["labels"] == ["Aves", "Animalia"]


def test_the_web_service_is_told_the_names_and_its_rows_keep_the_label(tmp_path, model, german):
    loaded = open_model(model, 1)
    about = web_answers.about(loaded, LIMITS)
    assert about["names"] == {"Aves": "Aves · Vögel", "Animalia": "Animalia · other animals"}
    assert web_answers.shapes().Model(**about).labels == ["Aves", "Animalia"]
    assert web_answers.classify(loaded, coloured("red"), 5, "a.jpg")["label"] == "Aves"
