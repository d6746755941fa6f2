"How a report looks, light and dark, on a phone and on paper; its script sorts and folds tables and opens pictures large."

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from species_wb.report.page import Page

SCREEN = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def jpeg(seed: int, side: int = 480) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(coarse).resize((side, side * 3 // 4)).save(file := io.BytesIO(), "JPEG", quality=85)
    return file.getvalue()


def bars(hatch: str = "") -> Figure:
    figure = Figure(figsize=(7, 4))
    figure.subplots().bar(["Aves", "Fungi", "Mammalia & co"], [4, 2, 3], color="black", hatch=hatch)
    return figure


def wide_page() -> Page:
    "A page whose figure and whose first table do not fit on a phone."
    page = Page("How well it recognises birds", "six photos")
    page.headline("5 of 6 photos are named right.")
    page.section("Figure")
    page.figure(bars(), "Bars of each class.", "Bars: photos of each class")
    page.section("Table")
    rows = [[f"species {k}", *(f"0.8{k} (0.76 to 0.9{k})" for _ in range(5))] for k in range(6)]
    page.table(rows, ["class", "F1", "precision", "recall", "top 3", "top 5"], "Scores of each class.")
    page.section("Photos")
    items = [{"photo": jpeg(k), "name": f"{k}.jpg", "alt": f"Photo {k}", "lines": ["✗ Aves"]} for k in range(3)]
    page.gallery([*items, {**items[0], "photo": None}], "Three photos.")
    return page


@pytest.fixture
def tab(browser, request):
    "Open a page: tab(page, path, …) → the tab; whatever is said on its console fails the test."
    contexts, said = [], []

    def opened(page: Page, path, **options):
        contexts.append(browser.new_context(**{"viewport": SCREEN, **options}))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page.write(path / "report.html").as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert said == []


CELLS = {
    "F1": ["0.81 (0.76 to 0.86)", "–", "0.9 (0.1 to 1)", "0.09", "0.811"],
    "n": ["1,234", "7", "–", "12,000", "99"],
    "share": ["12 %", "<1 %", "1 %", ">99 %", "99 %"],
    "change": ["−0.4", "+0.1", "0", "−12", "–"],
    "file": ["950.0 kB", "1.2 MB", "12 bytes", "0.9 MB", "3.0 kB"],
    "ahead": ["[1.2, 3]", "[10.5, 20]", "–", "[−2, 0]", "[3, 4]"],
    "time": ["3 min 20 s", "59 s", "2 h 5 min", "–", "3 min 3 s"],
}
LARGEST_FIRST = {
    "F1": [2, 4, 0, 3, 1], "n": [3, 0, 4, 1, 2], "share": [3, 4, 0, 2, 1], "change": [1, 2, 0, 3, 4],
    "file": [1, 0, 3, 4, 2], "ahead": [1, 4, 0, 3, 2],
    "time": [2, 0, 4, 1, 3],
}  # fmt: skip
EMPTY = {"F1": 1, "n": 1, "share": 0, "change": 1, "file": 0, "ahead": 1, "time": 1}


def column(tab, k: int) -> list[str]:
    return tab.locator(f"tbody tr > :nth-child({k + 1})").all_inner_texts()


def test_a_table_sorts_by_the_numbers_in_its_cells_and_back_again(tab, tmp_path):
    page = Page("Sorted")
    rows = [list(row) for row in zip("baDec", *CELLS.values(), strict=True)]
    page.table(rows, ["class", *CELLS], sums=["all", *[None] * 7])
    shown = tab(page, tmp_path)
    for k, (name, cells) in enumerate(CELLS.items(), 1):
        head, full = shown.get_by_role("columnheader", name=name, exact=True), len(cells) - EMPTY[name]
        largest = [cells[row] for row in LARGEST_FIRST[name]]
        ways = [
            ("descending", largest),
            ("ascending", largest[:full][::-1] + largest[full:]),  # what is empty stays last
            (None, cells),  # as it was written
        ]
        for way, order in ways:
            head.get_by_role("button").click()
            assert (head.get_attribute("aria-sort"), column(shown, k)) == (way, order), (name, way)
    head = shown.get_by_role("columnheader", name="class")
    head.get_by_role("button").press("Enter")  # the keyboard is enough
    assert column(shown, 0) == ["a", "b", "c", "D", "e"] and head.get_attribute("aria-sort") == "ascending"
    assert shown.locator("tfoot").inner_text().startswith("all") and shown.locator("[aria-sort]").count() == 1


def of_thousand() -> Page:
    page = Page("Many classes")
    page.table([[f"species {k}", k * 7 % 1000, k] for k in range(1000)], ["class", "n", "seen"])
    return page


def test_a_long_table_shows_its_first_rows_and_all_of_them_on_demand(tab, tmp_path):
    shown = tab(of_thousand(), tmp_path)
    rows = shown.locator("tbody tr:visible")
    assert rows.count() == 20 and "20 of 1,000 rows" in shown.locator("main, header").first.inner_text()
    shown.get_by_role("columnheader", name="n", exact=True).get_by_role("button").click()
    assert column(shown, 1)[0] == "999" and rows.count() == 20 and rows.last.inner_text().split("\t")[1] == "980"
    shown.emulate_media(media="print")
    assert rows.count() == 20 and "20 of 1,000 rows" in shown.locator("body").inner_text()
    shown.emulate_media(media="screen")
    button = shown.get_by_role("button", name="Show all 1,000")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    assert rows.count() == 1000
    shown.emulate_media(media="print")
    assert shown.locator(".scroll").evaluate("box => box.scrollHeight <= box.clientHeight")
    shown.emulate_media(media="screen")
    shown.get_by_role("button", name="Show the first 20").click()
    assert rows.count() == 20


def test_a_short_table_is_whole_and_has_no_button_for_more(tab, tmp_path):
    page = Page("Few classes")
    page.table([[f"species {k}", k] for k in range(25)], ["class", "n"])
    shown = tab(page, tmp_path)
    assert shown.locator("tbody tr:visible").count() == 25 and shown.get_by_text("Show all").count() == 0
    assert shown.locator(".scroll").evaluate("box => box.scrollHeight <= box.clientHeight")


def test_without_its_script_everything_is_there_and_no_button_is_dead(tab, tmp_path):
    page = wide_page()
    page.section("Many classes")
    page.table([[f"species {k}", k] for k in range(1000)], ["class", "n"])
    shown = tab(page, tmp_path, java_script_enabled=False)
    assert shown.locator("tbody tr:visible").count() == 1006 and shown.locator("img:visible").count() == 4
    assert shown.locator("button, dialog").count() == 0


def test_a_figure_opens_large_and_escape_brings_the_page_back(tab, tmp_path):
    shown = tab(wide_page(), tmp_path, viewport={"width": 1600, "height": 1200})
    opener = shown.get_by_role("button", name="Open large: Bars: photos of each class")
    before = opener.locator("img").bounding_box()["width"]
    opener.press("Enter")
    dialog = shown.get_by_role("dialog")
    assert dialog.locator("img").bounding_box()["width"] > 1.3 * before
    assert dialog.get_by_role("img", name="Bars: photos of each class").is_visible()
    assert "Bars of each class." in dialog.inner_text()
    shown.keyboard.press("Escape")
    assert not dialog.is_visible() and opener.evaluate("button => button === document.activeElement")


def test_photos_open_large_and_arrows_lead_through_the_gallery(tab, tmp_path):
    shown = tab(wide_page(), tmp_path)
    openers, dialog = shown.locator(".gallery").get_by_role("button"), shown.get_by_role("dialog")
    assert openers.count() == 3  # the fourth photo does not open
    before = openers.nth(1).locator("img").bounding_box()
    openers.nth(1).click()
    image = dialog.locator("img").bounding_box()
    assert image["width"] > 2 * before["width"] and dialog.locator("img").get_attribute("alt") == "Photo 1"
    assert all(said in dialog.inner_text() for said in ("2 of 3", "✗ Aves", "1.jpg"))
    for key, alt, place in (
        ("ArrowRight", "Photo 2", "3 of 3"), ("ArrowRight", "Photo 2", "3 of 3"), ("ArrowLeft", "Photo 1", "2 of 3"),
    ):  # fmt: skip
        shown.keyboard.press(key)
        assert dialog.locator("img").get_attribute("alt") == alt and place in dialog.inner_text()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_only_the_reports_own_script_runs(browser, tmp_path):
    "If a name ever reached the page as HTML, the policy of the page would still stop it."
    path = wide_page().write(tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    assert html.count("<script") == 1 and "script-src 'sha256-" in html
    evil = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
    path.write_text(html.replace("</header>", f"{evil}</header>"), encoding="utf-8")
    context = browser.new_context()
    shown = context.new_page()
    shown.goto(path.as_uri())
    shown.locator("img[src=x]").dispatch_event("error")
    assert shown.title() == "How well it recognises birds" and shown.locator("th button").count() == 6
    context.close()


def grey(shot: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(shot)).convert("L")).astype(float)


def test_the_page_and_its_figures_follow_the_window_into_the_dark(tab, tmp_path):
    shown = tab(wide_page(), tmp_path, color_scheme="light")
    light, figure = grey(shown.screenshot()), grey(shown.locator(".plot img").screenshot())
    assert np.median(light) == 255 and np.median(figure) == 255 and (figure < 30).mean() > 0.1  # black bars
    shown.emulate_media(color_scheme="dark")
    dark, figure = grey(shown.screenshot()), grey(shown.locator(".plot img").screenshot())
    assert np.median(dark) < 40 and np.median(figure) < 40 and (figure > 210).mean() > 0.1  # white bars
    assert dark.mean() < 70
    photo = shown.locator(".gallery img").first
    assert photo.evaluate("image => getComputedStyle(image).filter") == "none"  # no photo is inverted
    shown.get_by_role("button", name="Open large: Bars").click()
    assert np.median(grey(shown.locator("dialog img").screenshot())) < 40


def test_it_is_printed_black_on_white_from_a_dark_window_too(tab, tmp_path):
    shown = tab(wide_page(), tmp_path, color_scheme="dark", viewport={"width": 688, "height": 900})
    shown.emulate_media(media="print", color_scheme="dark")
    paper = grey(shown.screenshot(full_page=True))
    assert np.median(paper) == 255 and paper.mean() > 200
    assert shown.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(0, 0, 0)"
    assert np.median(grey(shown.locator(".plot img").screenshot())) == 255
    assert shown.evaluate("document.documentElement.scrollWidth") <= 688
    assert shown.evaluate("getComputedStyle(document.querySelector('.sort'), '::after').display") == "none"  # no arrow


@pytest.mark.parametrize(("theme", "window"), [("false", "light"), ("true", "dark")])
def test_in_jupyterlab_its_theme_decides_not_the_window(browser, tmp_path, theme, window):
    page, path = wide_page(), tmp_path / "lab.html"
    piece = page._macros.piece(page.sections[0].pieces[0])
    style = f"<style>{page._macros.style()}</style>"
    html = f"<!doctype html>{style}<body data-jp-theme-light={theme}><div class=swb>{piece}</div>"
    path.write_text(html, encoding="utf-8")
    context = browser.new_context(color_scheme=window)
    shown = context.new_page()
    shown.goto(path.as_uri())
    figure = np.median(grey(shown.locator(".swb").screenshot()))
    assert figure > 250 if theme == "true" else figure < 40
    context.close()


def test_in_a_dark_notebook_that_is_not_trusted_a_figure_can_be_read(browser, tmp_path):
    page, path = wide_page(), tmp_path / "lab.html"  # JupyterLab removes <style>, and keeps a background in an attribute
    piece = page._macros.piece(page.sections[0].pieces[0])
    path.write_text(f"<!doctype html><body style='background:#111'><div class=swb>{piece}</div>", encoding="utf-8")
    shown = browser.new_context().new_page()
    shown.goto(path.as_uri())
    figure = grey(shown.locator("img").screenshot())
    assert np.median(figure) == 255 and (figure < 30).mean() > 0.1  # black bars on white
    shown.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("what", [".plot .wide", ".scroll"])
def test_on_a_phone_a_shadow_shows_that_there_is_more(tab, tmp_path, what, scheme):
    shown = tab(wide_page(), tmp_path, viewport=PHONE, color_scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    box, edges = shown.locator(what), []
    hidden = "box => { for (const part of box.querySelectorAll('*')) part.style.opacity = 0; }"
    assert box.evaluate("box => box.scrollWidth > box.clientWidth + 50")
    box.evaluate(hidden)  # only the ground of the box, where the shadow lies
    for left in (0, 9999):
        box.evaluate(f"box => box.scrollLeft = {left}")
        ground = grey(box.screenshot())
        middle = ground[len(ground) // 2]
        edges.append([abs(middle[k] - middle[len(middle) // 2]) > 25 for k in (1, -2)])
    assert edges == [[False, True], [True, False]]


def test_on_a_phone_letters_of_figures_stay_readable(tab, tmp_path):
    shown = tab(wide_page(), tmp_path, viewport=PHONE)
    inch = shown.locator(".plot img").bounding_box()["width"] / 7
    assert 9 / 72 * inch > 9  # the smallest letters have 9 points


@pytest.mark.parametrize(("hatch", "kind"), [("", "svg+xml"), ("....", "png")])
def test_a_figure_is_sharp_at_twice_its_size_and_as_wide_as_the_page(tab, tmp_path, hatch, kind):
    page = Page("Sharp")
    page.section("Figure")
    page.figure(bars(hatch), "Bars.", "Bars")
    shown = tab(page, tmp_path)
    image = shown.locator(".plot img")
    assert image.get_attribute("src").startswith(f"data:image/{kind}")
    assert image.bounding_box()["width"] == pytest.approx(shown.locator("main").bounding_box()["width"], abs=1)
    if kind == "png":
        assert image.evaluate("image => image.naturalWidth") >= 2 * image.bounding_box()["width"]


def test_letters_in_figures_are_shapes_and_the_same_figure_gives_the_same_page(tmp_path):
    def written(name: str) -> str:
        page = Page("Same")
        page.figure(bars(), "Bars.", "Bars")
        return page.write(tmp_path / name).read_text(encoding="utf-8").split("<footer>")[0]

    html = written("a.html")
    assert html == written("b.html") and "Mammalia" not in html and "%3Ctext" not in html


def test_a_report_of_a_thousand_classes_with_long_tables_and_eighty_photos_stays_below_three_megabytes(tmp_path):
    page = Page("A thousand classes")
    names = [f"Genus{k // 7} species{k}" for k in range(1000)]
    for part in range(4):
        page.section(f"Table {part}")
        page.table([[name, k, *["0.81 (0.76 to 0.86)"] * 3] for k, name in enumerate(names)], ["class", "n", *"PRF"])
        page.figure(bars(), "Bars.", "Bars")
    page.gallery([{"photo": noisy(k), "name": f"{k}.jpg", "alt": "Photo", "lines": ["✗ Aves"]} for k in range(80)])
    text = page.write(tmp_path / "report.html").read_bytes()
    assert len(text) < 3_000_000 and all(name.encode() in text for name in names)
    assert text.count(b"data:image/jpeg") == 80 and text.count(b"data:image/svg+xml") == 4  # figures stay sharp


def noisy(seed: int) -> bytes:
    "A photo of 480 pixels with as many bytes as leaves and grass have."
    rough = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)
    Image.fromarray(rough).resize((480, 360)).save(file := io.BytesIO(), "JPEG", quality=90)
    return file.getvalue()
