"""In a browser, people see what they call a label beside it: on the service's page, in the camera panel and in the explorer."""

import pytest
from test_confusions import a_row

from species_wb.engine import toy
from species_wb.engine.model_file import open_model
from species_wb.photos import corrections
from species_wb.photos.pixels import encode_jpeg
from species_wb.predictions import predictions_table, write_predictions
from species_wb.runs import set_state

pytest.importorskip("anywidget")
pytest.importorskip("tornado")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
import numpy as np
from harness import Stage
from test_named import named_model
from test_serve import Served, answers, files

from species_wb.apps.camera import CameraPanel
from species_wb.apps.explorer import Explorer

LABELS = ("Aves", "Animalia", "Turdus merula")
WEIGHT = ((1, -1, 0), (-1, 1, 0), (0, 0, 0.5))


@pytest.fixture
def german(workspace, monkeypatch):
    "A workspace whose list calls one species by its German name."
    listed = "scientificName,vernacularName\nTurdus merula,Amsel\n"
    (workspace / "vernacular_names.csv").write_text(listed, encoding="utf-8")
    return workspace


def test_the_services_page_shows_both_names(browser, german, tmp_path):
    served = Served(toy.write_toy(tmp_path / "tiny.onnx", LABELS, (0, 1, 2), WEIGHT), tmp_path)
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    try:
        tab.goto(served.url)
        tab.locator("#about", has_text="tiny").wait_for()
        photo = encode_jpeg(np.full((300, 400, 3), (30, 200, 30), np.uint8))
        tab.set_input_files("#files", files(("crab.jpg", photo)))
        (said,) = answers(tab, 1)
        assert "Almost certainly Animalia · other animals" in said
        assert [*tab.locator(".bars bdi").all_inner_texts()][:2] == ["Animalia · other animals", "Turdus merula · Amsel"]
        tab.locator("summary").click()
        assert tab.inner_text("#labels") == "Aves · birds, Animalia · other animals, Turdus merula · Amsel"
        cut = "[...document.querySelectorAll('.bars bdi')].filter(n => n.scrollWidth > n.clientWidth + 1).length"
        assert tab.evaluate(cut) == 0 and tab.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        tab.close()
        served.end()


def test_the_services_page_and_the_camera_show_the_finer_name(browser, german, tmp_path):
    listed = german / "vernacular_names.csv"
    listed.write_text(listed.read_text(encoding="utf-8") + "Pica pica,Elster\n", encoding="utf-8")
    model = named_model(tmp_path / "m.onnx")
    photo = encode_jpeg(np.full((300, 400, 3), (200, 30, 30), np.uint8))
    served = Served(model, tmp_path)
    tab = browser.new_page()
    try:
        tab.goto(served.url)
        tab.locator("#about", has_text="toy").wait_for()
        tab.set_input_files("#files", files(("bird.jpg", photo)))
        (said,) = answers(tab, 1)
        assert "Almost certainly Aves · birds → Amsel (Turdus merula)" in said
        _, _, row = served.ask("/classify", photo, "POST", Content_Type="image/jpeg")
        assert (row["label"], row["taxon"], row["taxon_rank"], row["taxon_common"]) == ("Aves", "Turdus merula", "species", "blackbird")
        assert served.ask("/model")[2]["taxa"]["Pica pica"] == "Elster (Pica pica)"
    finally:
        tab.close()
        served.end()
    (tmp_path / "bird.jpg").write_bytes(photo)
    with Stage(browser, CameraPanel(model)) as stage:
        stage.page.set_input_files(".swb-view input[type=file]", str(tmp_path / "bird.jpg"))
        stage.page.locator(".swb-bars li").nth(0).wait_for()
        assert stage.page.locator(".swb-common").inner_text() == "birds → Amsel (Turdus merula)"
        assert stage.wrong == []


def test_the_camera_panel_shows_both_names_in_its_bars(browser, german, tmp_path):
    model = toy.write_toy(tmp_path / "two.onnx", LABELS, (0, 1, 2), WEIGHT, temperature=40)
    (tmp_path / "crab.jpg").write_bytes(encode_jpeg(np.full((300, 400, 3), (30, 200, 30), np.uint8)))
    with Stage(browser, CameraPanel(model)) as stage:
        stage.page.set_input_files(".swb-view input[type=file]", str(tmp_path / "crab.jpg"))
        stage.page.locator(".swb-bars li").nth(2).wait_for()
        shown = {"Animalia · other animals", "Turdus merula · Amsel", "Aves · birds"}
        assert {*stage.page.locator(".swb-bars .swb-name").all_inner_texts()} == shown
        assert stage.wrong == []


@pytest.fixture
def stage(browser, german):
    "An explorer of five photos: three of Aves, one of them taken for Animalia; two blackbirds."
    folder, run = german / "photos", german / "reports" / "train" / "toy-1"
    run.mkdir(parents=True)
    more = {"split": "test", "model": open_model(toy.write_toy(run / "model.onnx", LABELS, (0, 1, 2), WEIGHT), 1).sha256[:16]}
    answered = ("Aves", "Aves", "Animalia", "Turdus merula", "Turdus merula")
    rows = [a_row(folder, f"{k}.jpg", "red", "Aves" if k < 3 else "Turdus merula", answer, 0.9 - k / 10, **more)
            for k, answer in enumerate(answered)]
    rows[0] |= {"taxon": "Haliaeetus leucocephalus", "taxon_common": "bald eagle", "taxon_rank": "species", "taxon_score": 0.834}
    write_predictions(predictions_table(rows, folder, [*LABELS]), run / "predictions.parquet")
    set_state(run, "finished")
    with Stage(browser, Explorer(run)) as stage:
        stage.page.locator("td[role=gridcell]").first.wait_for()
        yield stage
        assert stage.wrong == []


def test_the_explorer_shows_both_names(stage):
    page = stage.page
    heads = page.locator("th[role=columnheader] .swb-name").all_inner_texts()
    assert [text.strip() for text in heads] == [*LABELS]  # short, with the whole name in the title
    assert page.get_by_role("columnheader", name="taken for Aves · birds").get_attribute("title").endswith("Aves · birds")
    assert "1 of 3 Aves · birds taken for Animalia · other animals" in " ".join(page.inner_text(".swb-side").split())
    page.get_by_role("gridcell", name="1 photo of Aves · birds, taken for Animalia · other animals").click()
    page.locator(".swb-card[aria-label*='Aves · birds, taken for Animalia · other animals']").wait_for()
    page.locator(".swb-gallery h3", has_text="1 photo of Aves · birds, taken for Animalia · other animals").wait_for()
    chosen = page.locator(".swb-filter select").first.evaluate("s => s.selectedOptions[0].textContent")
    assert chosen.replace("\u00a0", " ") == "Aves · birds"
    page.locator(".swb-card").click()
    page.locator(".swb-detail dl").wait_for()
    facts = page.inner_text(".swb-detail dl")
    assert "Aves · birds" in facts and "Animalia · other animals, 70" in facts and "→" not in facts


def test_the_explorer_shows_the_deepest_name_beside_the_answer(stage):
    page = stage.page
    page.locator("td.swb-own").first.click()
    page.locator(".swb-card").first.click()
    page.locator(".swb-detail dl").wait_for()
    facts = page.inner_text(".swb-detail dl").replace("\u00a0", " ")
    assert "Aves · birds, 90 % → bald eagle (Haliaeetus leucocephalus), 83 %" in facts


def test_a_photo_is_relabelled_by_the_name_that_people_use_and_gets_the_label(stage):
    page = stage.page
    page.get_by_role("gridcell", name="1 photo of Aves · birds, taken for Animalia").click()
    page.locator(".swb-card").first.click()
    page.locator(".swb-detail dl").wait_for()
    page.get_by_role("textbox", name="New label").click()
    page.get_by_role("textbox", name="New label").fill("ams")
    bar = page.get_by_role("toolbar", name="Corrections")
    bar.get_by_role("button", name="New label: ams").wait_for()  # the list is now that of the typed text
    bar.get_by_role("button", name="Turdus merula · Amsel").first.click()
    page.locator(".swb-status", has_text="relabelled").wait_for()
    assert [row["new_label"] for row in corrections.read_corrections()] == ["Turdus merula"]
