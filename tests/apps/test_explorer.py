"""The confusion explorer in a real browser: from a number to its photos, to one photo, to a correction,
with the mouse, with the keyboard alone, and from a cell of the notebook."""

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_confusions import a_row, photo

from species_wb.curate import one_photo
from species_wb.engine import toy
from species_wb.photos import corrections
from species_wb.engine.model_file import open_model
from species_wb.predictions import predictions_table, write_predictions
from species_wb.runs import set_state
from species_wb.taxa import colour

pytest.importorskip("anywidget")
pytest.importorskip("tornado")
from harness import Stage

from species_wb.apps.explorer import Explorer

HOSTILE = "<img src=x onerror=alert(1)> \"it's\" & 🦉.jpg"


@pytest.fixture
def run(workspace) -> Path:
    "A run: 60 red photos named right, 5 taken for green (one of them gone, one with a hostile name), 10 green ones."
    folder, run = workspace / "photos", workspace / "reports" / "train" / "toy-1"
    run.mkdir(parents=True)
    more = {"split": "test", "model": open_model(toy.write_toy(run / "model.onnx"), 1).sha256[:16]}
    given = [(f"red{k}.jpg", "red", "red", 0.99 - k / 100, "pond" if k % 2 else "hill") for k in range(60)]
    wrong = ("wrong0.jpg", HOSTILE, "wrong2.jpg", "wrong3.jpg", "gone.jpg")
    given += [(name, "red", "green", 0.9 - k / 10, "pond" if k < 3 else "hill") for k, name in enumerate(wrong)]
    given += [(f"green{k}.jpg", "green", "green", 0.8, "hill") for k in range(10)]
    rows = []
    for name, truth, answer, score, site in given:
        embedding = [score, float(answer == "red"), 1.0]
        rows.append(a_row(folder, name, truth, truth, answer, score, site=site, embedding=embedding, **more))
    (folder / "gone.jpg").unlink()
    write_predictions(predictions_table(rows, folder, ["red", "green"]), run / "predictions.parquet")
    set_state(run, "finished")
    return run


@pytest.fixture
def staged(browser, run):
    "Show an explorer; at the end the page must have complained of nothing and asked nobody else."
    stages = []

    def start(table: Path = run, **more) -> Stage:
        stages.append(Stage(browser, Explorer(table), **more))
        stages[-1].page.locator("td[role=gridcell]").first.wait_for()
        return stages[-1]

    yield start
    for stage in stages:
        stage.close()
        assert stage.wrong == []


def becomes(page, read, wanted) -> None:
    "Wait until the page, or Python, says what is wanted: a sentence may come before what it is about."
    limit = time.monotonic() + 15
    while read() != wanted and time.monotonic() < limit:
        page.wait_for_timeout(20)
    assert read() == wanted


def counts(page, *wanted: str) -> None:
    becomes(page, page.locator("td[role=gridcell]").all_inner_texts, [*wanted])


def shows(page, *wanted: str) -> None:
    becomes(page, lambda: names(page), [*wanted])


def cell(page, name: str):
    return page.get_by_role("gridcell", name=name)


def names(page) -> list[str]:
    return page.locator(".swb-card .swb-soft").all_inner_texts()


def opened(page, name: str = "5 photos of red, taken for green", count: int = 5) -> None:
    cell(page, name).click()
    page.locator(".swb-card").nth(count - 1).wait_for()


def status(page, words: str) -> str:
    page.locator(".swb-status", has_text=words).wait_for()
    return page.inner_text(".swb-status")


def test_a_cell_shows_its_photos_most_confident_first(staged):
    page = staged().page
    counts(page, "60", "5", "·", "10")
    assert "70 of 75 labelled photos are named right" in page.inner_text(".swb-about")
    opened(page)
    shows(page, "wrong0.jpg", HOSTILE, "wrong2.jpg", "wrong3.jpg", "gone.jpg")
    scores = [text.replace("\u00a0", " ") for text in page.locator(".swb-card b").all_inner_texts()]
    assert scores == ["90 %", "80 %", "70 %", "60 %", "50 %"]
    page.locator(".swb-card img").nth(3).wait_for()
    page.wait_for_function("[...document.querySelectorAll('.swb-card img')].every(i => i.naturalWidth === 80)")
    cell(page, "0 photos of green, taken for red").click()
    assert status(page, "no photos") == "There are no photos of green, taken for red." and len(names(page)) == 5


def test_a_photo_that_is_gone_has_its_sentence_in_the_pictures_place(staged):
    page = staged().page
    opened(page)
    page.locator(".swb-card .swb-gone").wait_for()
    assert page.inner_text(".swb-card .swb-gone") == "gone.jpg is not there: correct its path, or copy the file to it."
    page.locator(".swb-card").nth(4).click()
    page.locator(".swb-large .swb-gone", has_text="gone.jpg is not there").wait_for()
    page.locator(".swb-bars li").nth(1).wait_for()
    assert page.locator(".swb-bars li").count() == 2  # what is known of it is there all the same


def test_names_of_files_are_only_ever_text(staged):
    page = staged().page
    opened(page)
    page.locator(".swb-card").nth(1).click()
    page.locator(".swb-detail h3", has_text="onerror").wait_for()
    assert page.inner_text(".swb-detail h3") == HOSTILE and page.locator("img[src=x]").count() == 0
    page.keyboard.press("r")
    page.get_by_role("textbox", name="New label").fill("<b>owl</b> 🦉")
    page.keyboard.press("Enter")
    status(page, "relabelled")
    page.get_by_role("rowheader", name="All 1 photo of <b>owl</b> 🦉").wait_for()
    assert page.locator(".swb-explorer b b, .swb-matrix b, .widget-html b, .widget-dropdown b").count() == 0
    assert corrections.read_corrections()[0]["path"] == HOSTILE


def test_photos_are_filtered_by_score_class_site_and_correction(staged):
    page = staged().page
    opened(page)
    page.get_by_role("spinbutton", name="score from").fill("65")
    page.get_by_role("spinbutton", name="score from").press("Enter")
    page.locator(".swb-count", has_text="3 photos").wait_for()
    shows(page, "wrong0.jpg", HOSTILE, "wrong2.jpg")
    page.get_by_role("spinbutton", name="score from").fill("0")
    page.get_by_role("spinbutton", name="score from").press("Enter")
    page.get_by_role("combobox", name="site").select_option("hill")
    page.locator(".swb-count", has_text="2 photos").wait_for()
    page.get_by_role("combobox", name="taken for").select_option("any")
    page.locator(".swb-count", has_text="32 photos of red").wait_for()
    page.get_by_role("combobox", name="show").select_option("only flagged")
    page.get_by_text("No photo fits").wait_for()


def test_the_whole_row_column_and_table_can_be_opened(staged):
    page = staged().page
    for name, count in (("All 65 photos of red", 65), ("All 15 photos taken for green", 15), ("All 75 photos", 75)):
        page.locator(f"th[aria-label='{name}']").click()
        page.locator(".swb-count", has_text=f"{count} photos").wait_for()
    becomes(page, page.locator(".swb-card .swb-line").first.inner_text, "red")


def test_one_photo_shows_scores_neighbours_and_where_the_network_looked(staged):
    page = staged().page
    opened(page)
    page.locator(".swb-card").first.click()
    page.locator(".swb-large img[alt='The photo']").wait_for()
    plain = page.get_attribute(".swb-large img", "src")
    page.get_by_role("button", name="Map for “green”").click()
    page.locator(".swb-large img[alt='Where the network looked for green']").wait_for()
    page.locator(".swb-said", has_text="cclusion").wait_for()
    assert page.get_attribute(".swb-large img", "src") != plain
    page.keyboard.press("m")
    page.locator(".swb-large img[alt='Where the network looked for red']").wait_for()
    page.locator(".swb-near button").nth(7).wait_for()
    assert page.locator(".swb-near button").count() == 8
    assert "alike" in page.locator(".swb-near button").first.get_attribute("aria-label")
    drawn = page.evaluate("document.querySelector('.swb-bars i').style.backgroundColor")
    assert drawn == page.evaluate(f"""() => {{
        const i = document.createElement('i'); i.style.color = '{colour("green")}'; return i.style.color;
    }}""")
    alike = page.locator(".swb-near button").first.get_attribute("aria-label").split(":")[0]
    page.locator(".swb-near button").first.click()
    page.locator(".swb-detail h3", has_text=alike).wait_for()


def test_relabelling_moves_a_photo_and_undo_brings_it_back(staged):
    page = staged().page
    opened(page)
    page.locator(".swb-card").first.click()
    page.locator(".swb-detail h3", has_text="wrong0.jpg").wait_for()
    page.get_by_role("textbox", name="New label").click()
    page.get_by_role("toolbar", name="Corrections").get_by_role("button", name="green").click()
    written = f"written to {corrections.file()}; the photo itself stays as it is."
    said = status(page, "relabelled")
    assert said.startswith(f"wrong0.jpg is relabelled to green: {written} The new label is the model's own answer")
    page.locator(".swb-about", has_text="1 photo was relabelled to the model's own answer").wait_for()
    counts(page, "60", "4", "·", "11")
    becomes(page, lambda: names(page)[:1], [HOSTILE])
    page.locator(".swb-detail h3", has_text="onerror").wait_for()  # on to the next one
    (row,) = corrections.read_corrections()
    assert (row["action"], row["old_label"], row["new_label"], row["path"]) == ("relabel", "red", "green", "wrong0.jpg")
    page.get_by_role("button", name="Undo").click()
    status(page, "Undone: wrong0.jpg")
    counts(page, "60", "5", "·", "10")
    becomes(page, lambda: names(page)[:1], ["wrong0.jpg"])
    page.locator(".swb-about", has_not_text="own answer").wait_for()


def test_corrections_are_still_there_after_a_reload_and_can_be_undone_then(staged):
    stage = staged()
    opened(stage.page)
    stage.page.locator(".swb-card").nth(2).click()
    stage.page.keyboard.press("x")
    status(stage.page, "excluded")
    stage.reload()
    cell(stage.page, "4 photos of red, taken for green").wait_for()
    fresh = staged().page  # another kernel
    cell(fresh, "4 photos of red, taken for green").wait_for()
    assert "1 excluded" in fresh.inner_text(".swb-about")
    fresh.locator("th").first.click()
    fresh.get_by_role("combobox", name="show").select_option("only excluded")
    fresh.locator(".swb-count", has_text="1 photo").wait_for()
    fresh.locator(".swb-card", has_text="excluded").wait_for()
    fresh.get_by_role("button", name="Undo").click()
    status(fresh, "Undone")
    cell(fresh, "5 photos of red, taken for green").wait_for()


def test_several_photos_are_corrected_and_undone_at_once(staged):
    page = staged().page
    opened(page)
    page.locator(".swb-card").nth(0).click()
    page.locator(".swb-card").nth(2).click(modifiers=["Shift"])
    page.locator(".swb-picked", has_text="3 photos selected").wait_for()
    page.locator(".swb-card").nth(1).click(modifiers=["Control"])
    selected = "2 photos selected: a correction holds for all of them."
    becomes(page, lambda: page.inner_text(".swb-picked"), selected)
    page.keyboard.press("f")
    assert status(page, "flagged").startswith("2 photos are flagged: written to")
    becomes(page, page.locator(".swb-card .swb-mark").all_inner_texts, ["⚑ flagged"] * 2)
    assert len(names(page)) == 5
    page.keyboard.press("z")
    status(page, "Undone: 2 photos")
    becomes(page, page.locator(".swb-mark").count, 0)
    assert len(corrections.read_corrections()) == 4


def test_everything_can_be_done_with_the_keyboard_alone(staged):
    page = staged().page
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.getAttribute('role')") != "gridcell":
        page.keyboard.press("Tab")
    for key in ("ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.locator(".swb-card").nth(4).wait_for()
    page.wait_for_function("document.activeElement.classList.contains('swb-card')")
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.locator(".swb-detail h3", has_text="wrong2.jpg").wait_for()
    page.keyboard.press("r")
    page.keyboard.type("gre")
    page.keyboard.press("Enter")
    status(page, "wrong2.jpg is relabelled to green")
    page.wait_for_function("document.activeElement.textContent.includes('wrong3.jpg')")  # the next one has the focus
    for key, said in (
        ("c", "confirmed"), ("z", "Undone"), ("Space", ""), ("x", "excluded"), ("z", "Undone"),
        ("z", "wrong2.jpg is no longer relabelled"),
    ):  # fmt: skip
        page.keyboard.press(key)
        if said:
            status(page, said)
    page.keyboard.press("?")
    page.locator(".swb-help").wait_for()
    assert "undo the last correction" in page.inner_text(".swb-help")
    page.keyboard.press("Escape")
    page.locator(".swb-help").wait_for(state="hidden")
    page.keyboard.press("Escape")
    page.locator(".swb-detail").wait_for(state="hidden")


def test_what_cannot_be_corrected_is_said_and_nothing_written(staged):
    page = staged().page
    opened(page)
    page.keyboard.press("f")
    assert "Choose a photo first" in status(page, "Choose")
    page.locator(".swb-card").first.click()
    page.locator(".swb-detail h3", has_text="wrong0").wait_for()
    page.keyboard.press("r")
    page.get_by_role("textbox", name="New label").wait_for()
    page.get_by_role("toolbar", name="Corrections").get_by_role("button", name="red").click()
    assert "labelled red already" in status(page, "already")
    becomes(page, page.locator(".swb-wrong").count, 1)
    page.keyboard.press("z")
    assert "no correction to undo" in status(page, "undo") and not corrections.file().exists()


def test_opening_a_cell_takes_no_sentence_away_that_came_after_its_photos(run, monkeypatch):
    explorer, order = Explorer(run), []
    monkeypatch.setattr(explorer.status, "say", lambda text, wrong=False: order.append(f"said: {text}"))
    explorer.grid.observe(lambda _: order.append("photos"), "cards")
    explorer.matrix.cell = ("red", "green")
    assert order == ["said: ", "photos"]
    explorer.close()


def test_no_more_thumbnails_are_asked_for_than_are_near_the_screen(browser, workspace):
    folder = workspace / "many"
    folder.mkdir()
    data = photo("red", 1)
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / "a.jpg").write_bytes(data)
    row = {"path": "a.jpg", "sha256": sha256, "status": "ok", "label": "green", "score": 0.5, "truth": "red"}
    rows = [row] * 2000
    write_predictions(predictions_table(rows, folder, ["red", "green"]), workspace / "many.parquet")
    explorer, asked = Explorer(workspace / "many.parquet"), []
    explorer.grid.on_msg(lambda _, asks, __: asked.extend(asks["which"] if asks["ask"] == "thumbnails" else []))
    with Stage(browser, explorer) as stage:
        cell(stage.page, "2,000 photos of red, taken for green").click()
        stage.page.locator(".swb-card img").nth(5).wait_for()
        stage.page.wait_for_timeout(500)
        near = "nodes => nodes.filter(node => node.getBoundingClientRect().top < innerHeight + 200).length"
        shown = stage.page.locator(".swb-card").evaluate_all(near)
        assert 6 <= len(asked) <= shown < 120 and len(set(asked)) == len(asked)
        assert stage.page.locator(".swb-card").count() < 300
        stage.page.mouse.move(300, 600)
        for _ in range(30):
            stage.page.mouse.wheel(0, 900)
            stage.page.wait_for_timeout(30)
        stage.page.wait_for_function("document.querySelectorAll('.swb-card img').length > 60")
        assert stage.page.locator(".swb-card").count() > 300 and stage.wrong == []


def test_a_view_that_closes_leaves_nothing_behind(staged):
    stage = staged()
    stage.page.evaluate("""() => {
        window.urls = new Set();
        const [make, drop] = [URL.createObjectURL, URL.revokeObjectURL];
        URL.createObjectURL = blob => {
            const url = make.call(URL, blob);
            if (blob.type === 'image/jpeg') urls.add(url);
            return url;
        };
        URL.revokeObjectURL = url => { urls.delete(url); drop.call(URL, url); };
    }""")
    opened(stage.page)
    stage.page.locator(".swb-card").first.click()
    stage.page.locator(".swb-large img").wait_for()
    stage.page.wait_for_function("urls.size >= 5")
    stage.leave()
    stage.page.wait_for_function("urls.size === 0")
    stage.again()
    cell(stage.page, "5 photos of red, taken for green").wait_for()


def test_a_kernel_that_died_is_said(staged):
    stage = staged()
    stage.page.clock.install()
    stage.dead = True
    cell(stage.page, "5 photos of red, taken for green").click()
    stage.page.clock.run_for(70_000)
    assert "Python does not answer" in status(stage.page, "answer")


def test_a_slow_map_holds_up_nothing_else(staged, monkeypatch):
    held, real = threading.Event(), one_photo.heat_map_photo
    monkeypatch.setattr(one_photo, "heat_map_photo", lambda *given: held.wait(30) and real(*given))
    page = staged().page
    opened(page)
    page.locator(".swb-card").first.click()
    page.get_by_role("button", name="Map for “green”").click()
    page.locator(".swb-said", has_text="Asking the network").wait_for()
    page.keyboard.press("f")
    status(page, "flagged")
    opened(page, "10 photos of green, named right", 10)
    page.locator(".swb-card img").nth(9).wait_for()
    held.set()


def test_shares_and_order_change_what_is_shown_and_not_what_it_means(staged):
    page = staged().page
    page.get_by_role("button", name="Shares in %", pressed=False).click()
    page.get_by_role("button", name="Shares in %", pressed=True).wait_for()
    counts(page, "92", "8", "·", "100")
    opened(page)
    assert len(names(page)) == 5


@pytest.mark.parametrize("theme", ["light", "dark", ""])
@pytest.mark.parametrize("width", [390, 700, 1280, 1920])
def test_it_fits_the_window_and_numbers_can_be_read(staged, theme, width):
    page = staged(theme=theme, width=width).page
    opened(page)
    page.locator(".swb-card").first.click()
    page.locator(".swb-large img").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrast = """nodes => nodes.map(node => {
        const part = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        const light = text => {
            const c = text.match(/[\\d.]+/g).slice(0, 3).map(v => part(v / 255));
            return .2126 * c[0] + .7152 * c[1] + .0722 * c[2];
        };
        const style = getComputedStyle(node);
        const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
        return (a + .05) / (b + .05);
    })"""
    assert min(page.locator("td:not(.swb-none)").evaluate_all(contrast)) >= 4.5


def test_many_classes_are_shown_a_page_at_a_time(browser, workspace):
    labels = [f"species {k:02}" for k in range(70)]
    said = {"status": "ok", "score": 0.5}
    rows = [{"path": f"{k}.jpg", "label": labels[(k * 3) % 70], "truth": labels[k % 70], **said} for k in range(140)]
    write_predictions(predictions_table(rows, workspace, labels), workspace / "a.parquet")
    with Stage(browser, Explorer(workspace / "a.parquet")) as stage:
        stage.page.get_by_text("Classes 1 to 20 of 70, most confused first").wait_for()
        stage.page.get_by_role("button", name="Most confused first").click()
        stage.page.get_by_text("Classes 1 to 20 of 70.").wait_for()
        becomes(stage.page, stage.page.locator(".swb-matrix tbody tr").count, 21)  # and one for the other classes
        for _ in range(3):
            stage.page.get_by_role("button", name="Further classes").click()
        stage.page.get_by_text("Classes 61 to 70 of 70").wait_for()
        stage.page.locator("th[aria-label='All 2 photos of species 65']").click()
        stage.page.locator(".swb-count", has_text="2 photos of species 65").wait_for()
        assert stage.wrong == []


@pytest.fixture
def thousand(workspace) -> Path:
    "A thousand species with a long tail: the 300th and the 700th are confused most, and each other one only rarely."
    labels = [f"Genus{k // 4:03} species{k:03}" for k in range(1000)]
    pairs = [(labels[k], labels[k]) for k in range(1000) for _ in range(1 + 400 // (k + 1))]
    pairs += [(labels[300], labels[700])] * 9 + [(labels[k], labels[(k + 37) % 1000]) for k in range(0, 1000, 5)]
    pairs += [(labels[40], labels[800])]
    rows = [{"path": f"{k}.jpg", "label": answer, "truth": truth, "score": 0.5, "status": "ok", "split": "test"}
            for k, (truth, answer) in enumerate(pairs)]  # fmt: skip
    write_predictions(predictions_table(rows, workspace, labels), workspace / "many.parquet")
    return workspace / "many.parquet"


def test_of_a_thousand_classes_the_most_confused_stand_on_the_first_page(staged, thousand):
    page = staged(thousand).page
    page.get_by_text("Classes 1 to 20 of 1,000, most confused first").wait_for()
    first = page.locator(".swb-matrix tbody th").first
    assert first.inner_text().startswith("Genus075 species300")
    mistake = cell(page, "9 photos of Genus075 species300, taken for Genus175 species700")
    assert mistake.evaluate("cell => cell.closest('tbody').rows[0].cells[2] === cell")
    elsewhere = page.locator("tbody tr", has_text="Genus010 species040").locator(".swb-others")
    assert elsewhere.inner_text() == "1"  # a row adds up: one of its mistakes is with a class on another page
    assert "1 photo of Genus010 species040, taken for classes that are not shown here" in elsewhere.get_attribute("title")
    mistake.click()
    page.locator(".swb-count", has_text="9 photos of Genus075 species300, taken for Genus175 species700").wait_for()


def test_a_class_is_found_by_a_part_of_its_name_with_those_it_is_confused_with(staged, thousand):
    stage = staged(thousand)
    page = stage.page
    page.get_by_role("textbox", name="Find a class").fill("species30")
    page.get_by_text("10 classes with “species30” in their names, and 5 that they are confused with").wait_for()
    rows = page.locator(".swb-matrix tbody th")
    becomes(page, lambda: rows.count() and rows.first.inner_text().split("\n")[0], "Genus075 species300")
    rows = [text.split("\n")[0] for text in rows.all_inner_texts()]
    assert {name[-3:-1] for name in rows[:10]} == {"30"} and rows[0] == "Genus075 species300"
    assert "Genus175 species700" in rows[10:15] and rows[15:] == ["other classes"]
    page.get_by_role("textbox", name="Find a class").fill("no such animal")
    page.get_by_text("No class has “no such animal” in its name.").wait_for()
    page.get_by_role("textbox", name="Find a class").fill("")
    page.get_by_text("Classes 1 to 20 of 1,000").wait_for()
    becomes(page, lambda: stage.widget.matrix.classes[:2], ["Genus075 species300", "Genus175 species700"])


# What scrolls up and down inside the explorer, although the page scrolls.
SCROLLS = """() => [...document.querySelectorAll('.swb-explorer *')].filter(node =>
  /auto|scroll/.test(getComputedStyle(node).overflowY) && node.scrollHeight > node.clientHeight + 1)
  .map(node => node.className)"""
ENDS = """() => {
  const card = document.querySelector('.swb-detail').getBoundingClientRect();
  return [card.top, card.bottom];
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_only_the_page_scrolls_and_all_of_a_photos_card_can_be_reached(staged, width):
    page = staged(width=width, height=500).page
    opened(page, "60 photos of red, named right", 60)
    page.locator(".swb-card").first.click()
    page.locator(".swb-near button").nth(7).wait_for()
    page.keyboard.press("r")
    page.locator(".swb-labels button:visible").first.wait_for()
    assert page.evaluate(SCROLLS) == []
    if width == 1280:  # the card is higher than the window, and stands beside a gallery that is higher still
        page.evaluate("scrollTo(0, 900)")
        page.wait_for_function(f"({ENDS})()[1] <= innerHeight")
        page.evaluate("scrollBy(0, -500)")
        page.wait_for_function(f"({ENDS})()[0] >= -1")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_matrix_fits_beside_a_photo_or_shows_that_it_goes_on(browser, workspace, width):
    labels = ["Amphibia", "Animalia", "Arachnida", "Aves", "Fungi", "Insecta", "Mammalia", "Mollusca", "Plantae",
              "Reptilia", "none of these"]  # fmt: skip
    rows = [{"path": f"{k}.jpg", "label": labels[k % 11], "truth": labels[k % 10], "score": 0.5, "status": "ok"}
            for k in range(110)]  # fmt: skip
    rows[0] |= {"label": None, "abstained": True}  # one more column: not sure
    write_predictions(predictions_table(rows, workspace, labels), workspace / "a.parquet")
    with Stage(browser, Explorer(workspace / "a.parquet"), width=width) as stage:
        table = stage.page.locator(".swb-grid")
        stage.page.locator("td[role=gridcell]").first.wait_for()
        over = table.evaluate("node => node.scrollWidth - node.clientWidth")
        if width == 1280:
            return None if over <= 0 else pytest.fail(f"{over} pixels of the matrix are cut off")
        assert over > 0
        stage.page.locator(".swb-grid.swb-goes-on").wait_for()  # its edge fades
        table.evaluate("node => node.scrollTo(9999, 0)")
        stage.page.locator(".swb-grid:not(.swb-goes-on)").wait_for()
        name = stage.page.locator(".swb-matrix tbody th").first
        assert name.bounding_box()["x"] >= 0 and name.is_visible(), "the names of the rows stay in view"


def test_jupyterlabs_own_keys_stay_quiet_in_it(staged):
    assert staged().page.locator(".swb-explorer[data-lm-suppress-shortcuts=true]").count() == 1


@pytest.mark.parametrize("panel", ["explorer", "camera"])
@pytest.mark.parametrize("package", ["anywidget", "ipywidgets"])
def test_without_a_package_the_install_line_is_said(panel, package):
    code = f"import sys; sys.modules[{package!r}] = None\nimport species_wb.apps.{panel}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs one more package: pip install '.[lab]'" in done.stderr


def test_keys_are_heard_after_a_click_in_the_photos_own_panel(staged):
    page = staged().page
    opened(page)
    page.locator(".swb-card").first.click()
    page.get_by_role("group", name="Photo, or where the network looked").get_by_role("button").nth(1).click()
    page.keyboard.press("f")
    status(page, "flagged")
    page.get_by_role("button", name="Close this photo").click()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()


def test_in_one_column_a_photo_comes_into_view(staged):
    page = staged(width=640, height=500).page
    opened(page)
    page.locator(".swb-card").nth(2).click()
    page.wait_for_function("""() => {
        const r = document.querySelector('.swb-large')?.getBoundingClientRect();
        return r && r.top < innerHeight && r.bottom > 0;
    }""")


def test_a_runs_csv_finds_its_photos_as_its_folder_does(workspace, run):
    from species_wb.contracts import read_table
    from species_wb.curate.predictions import open_predictions

    write_predictions(read_table(run / "predictions.parquet"), run / "predictions.csv")
    assert open_predictions(run / "predictions.csv").root == open_predictions(run).root


def in_kernel(stage, work):
    "Do something as a cell of the notebook would, in the kernel's thread."
    return stage.kernel.submit(work).result(10)


def test_a_cell_of_the_notebook_opens_observes_and_links(staged, run):
    stage = staged()
    explorer, seen = stage.widget, []
    in_kernel(stage, lambda: explorer.matrix.observe(lambda change: seen.append(change.new), "cell"))
    in_kernel(stage, lambda: setattr(explorer.matrix, "cell", ("red", "green")))
    stage.page.locator(".swb-count", has_text="5 photos of red, taken for green").wait_for()
    stage.page.get_by_role("gridcell", name="5 photos of red, taken for green", selected=True).wait_for()
    opened(stage.page, "10 photos of green, named right", 10)
    becomes(stage.page, lambda: explorer.photos.num_rows, 10)
    assert seen == [("red", "green"), ("green", "green")]
    in_kernel(stage, lambda: setattr(explorer.filters.site, "value", "pond"))
    stage.page.get_by_text("No photo fits").wait_for()
    becomes(stage.page, stage.page.get_by_role("combobox", name="site").input_value, "pond")


def test_a_control_that_needs_no_python_reaches_it_all_the_same(staged):
    stage = staged()
    stage.page.get_by_role("button", name="Most confused first").click()
    stage.page.get_by_role("button", name="Shares in %").click()
    stage.page.wait_for_function("document.querySelector('td').textContent === '92'")
    opened(stage.page)
    matrix = stage.widget.matrix
    becomes(stage.page, lambda: in_kernel(stage, lambda: (matrix.shares, matrix.most_confused_first)), (True, True))
    in_kernel(stage, lambda: setattr(matrix, "shares", False))
    stage.page.get_by_role("button", name="Shares in %", pressed=False).wait_for()


def test_parts_can_be_laid_out_alone(browser, run):
    import ipywidgets

    explorer = Explorer(run)
    with Stage(browser, ipywidgets.HBox([explorer.matrix, explorer.largest]), theme="dark") as stage:
        cell(stage.page, "5 photos of red, taken for green").click()
        stage.page.locator("td[aria-selected=true]").wait_for()
        stage.page.get_by_role("button", name="5 of 65 red taken for green").wait_for()
        colour_of = "getComputedStyle(document.querySelector('.swb-part')).backgroundColor"
        assert stage.page.evaluate(colour_of) == stage.page.evaluate("getComputedStyle(document.body).backgroundColor")
        # the page marks the cell at once, Python hears of it afterwards
        becomes(stage.page, lambda: explorer.matrix.cell, ("red", "green"))
        assert stage.wrong == []
    explorer.close()


def test_a_button_means_the_photos_that_were_selected_when_it_was_pressed(staged):
    stage, free = staged(), threading.Event()
    opened(stage.page)
    stage.kernel.submit(free.wait, 30)  # a long cell is running
    for at in (0, 1, 2):
        stage.page.locator(".swb-card").nth(at).click(modifiers=["Control"])
    stage.page.get_by_role("button", name="Flag (F)").click()
    stage.page.locator(".swb-card").nth(4).click()
    free.set()
    assert status(stage.page, "flagged").startswith("3 photos are flagged")
    assert [row["path"] for row in corrections.read_corrections()] == ["wrong0.jpg", HOSTILE, "wrong2.jpg"]


def test_closing_an_explorer_closes_all_that_it_is_made_of(run, workspace):
    from ipywidgets.widgets import widget

    before = set(widget._instances)
    Explorer(run).close()
    assert set(widget._instances) == before
