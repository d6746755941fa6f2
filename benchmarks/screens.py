"""Screenshots of the live notebook's two panels in each state, light and dark, at 1280 and 1920 pixels: look at them before a talk.

    .venv/bin/python benchmarks/screens.py FOLDER [--run reports/train/RUN] [--photos PHOTOS] [--only light-1280]

The camera is a fake one that alternates two photos: of --photos (test/Aves, test/Plantae), or drawn ones. With --run its model answers, and the confusion explorer is shown too; its
corrections go to a workspace of their own. Needs Chromium.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "apps"))
from harness import Stage
from live import two_photos
from playwright.sync_api import sync_playwright
from test_camera import camera_film, with_camera

from species_wb.apps.camera import CameraPanel
from species_wb.apps.explorer import Explorer


def camera_states(page) -> Iterator[str]:
    "Go through the camera panel, and name each state."
    press = lambda name: page.get_by_role("button", name=name).click()  # noqa: E731
    yield "empty"
    press("Start")
    page.locator(".swb-answer:visible").wait_for()
    press("Timings")
    page.wait_for_timeout(1500)
    camera = "s => { s.selectedOptions[0].textContent = 'Camera'; }"  # the fake one is called by the path of its film
    page.get_by_label("Look at").evaluate(camera)
    yield "running"
    press("Settings")
    page.get_by_label("Site").fill("window")
    press("Record")
    page.wait_for_timeout(1000)
    yield "recording"
    press("Stop recording")
    page.get_by_label("Not sure below").fill("100")
    page.get_by_label("Not sure below").press("Enter")
    page.wait_for_timeout(500)
    yield "unsure"
    press("Freeze")
    press("Whole frame")
    page.wait_for_timeout(300)
    yield "frozen"
    press("Stop")
    page.get_by_label("Look at").select_option("Address, folder or film by its path …")
    page.get_by_label("Address, path").fill("/no/such/film.mp4")
    press("Start")
    page.locator(".swb-bad").wait_for()
    yield "refused"


def explorer_states(page) -> Iterator[str]:
    "Go through the explorer, and name each state."
    page.locator("td[role=gridcell]").first.wait_for()
    yield "matrix"
    page.get_by_role("button", name="Shares in %").click()
    page.get_by_role("button", name="Most confused first").click()
    yield "shares"
    page.locator(".swb-go").first.click()
    page.locator(".swb-card").first.click()
    page.locator(".swb-large img").wait_for()
    yield "photo"
    page.locator(".swb-tabs button").nth(1).click()
    page.locator(".swb-large:not(.swb-waiting) img[alt^=Where]").wait_for(timeout=60_000)
    yield "map"
    page.keyboard.press("r")
    yield "label"
    page.locator(".swb-labels button:visible").nth(0).click()
    page.locator(".swb-status", has_text="relabelled").wait_for()
    yield "corrected"
    named_right = page.locator("td.swb-own")
    counts = [int("".join(filter(str.isdigit, text)) or 0) for text in named_right.all_inner_texts()]
    named_right.nth(counts.index(max(counts))).click()
    page.locator(".swb-card").nth(4).wait_for()
    page.locator(".swb-card").nth(1).click()
    page.locator(".swb-card").nth(4).click(modifiers=["Shift"])
    yield "selected"
    page.keyboard.press("?")
    yield "keys"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--photos", type=Path, default=os.environ.get("SWB_PHOTOS") or None)
    parser.add_argument("--only", default="", help="of the themes and widths")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        film = camera_film(Path(home) / "two.mjpeg", two_photos(given.photos, Path(home)), frames=90)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", *with_camera(film)])
        run = given.run.absolute() if given.run else ""
        panels = [("camera", lambda: CameraPanel(run), camera_states), *([("explorer", lambda: Explorer(run), explorer_states)] if given.run else [])]
        looks = [(theme, width) for theme in ("light", "dark") for width in (1280, 1920) if given.only in f"{theme}-{width}"]
        for k, (theme, width) in enumerate(looks):
            os.environ["SPECIES_WB_HOME"] = f"{home}/{k}"
            os.mkdir(f"{home}/{k}")
            for name, panel, states in panels:
                with Stage(browser, panel(), theme=theme, width=width, height=900, permissions=["camera"]) as stage:
                    for state in states(stage.page):
                        stage.page.wait_for_timeout(400)
                        path = given.folder / f"{name}-{state}-{theme}-{width}.png"
                        stage.page.screenshot(path=path)
                        print(path)
        browser.close()


if __name__ == "__main__":
    main()
