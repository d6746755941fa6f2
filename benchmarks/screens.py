"""Screenshots of the confusion explorer, light and dark, at 1280 and 1920 pixels: python benchmarks/screens.py RUN FOLDER

RUN is a run folder with its model and photos. Each state that a person meets is one picture: the matrix, shares and most confused first, a cell with a photo, where the network looked, a selection,
the choice of a label, and what stands there after a correction. Corrections go to a workspace of their own. Needs Chromium."""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from harness import Stage

from species_wb.explorer import Explorer


def states(page):
    "Go through the explorer, and name each state."
    page.locator("td[role=gridcell]").first.wait_for()
    yield "matrix"
    page.get_by_role("button", name="Shares in %").click()
    page.get_by_role("button", name="Most confused first").click()
    yield "shares"
    page.locator(".swb-worst button").first.click()
    page.locator(".swb-card").first.click()
    page.locator(".swb-large img").wait_for()
    yield "photo"
    page.locator("[data-what]").nth(1).click()
    page.locator(".swb-large:not(.swb-waiting) img[alt^=Where]").wait_for(timeout=60_000)
    yield "map"
    page.keyboard.press("r")
    yield "label"
    page.get_by_role("dialog").get_by_role("button").nth(0).click()
    page.locator(".swb-status", has_text="relabelled").wait_for()
    yield "corrected"
    page.locator("td.swb-own").nth(2).click()
    page.locator(".swb-card").nth(7).wait_for()
    page.locator(".swb-card").nth(1).click()
    page.locator(".swb-card").nth(4).click(modifiers=["Shift"])
    yield "selected"
    page.keyboard.press("?")
    yield "keys"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        for theme in ("light", "dark"):
            for width in (1280, 1920):
                with tempfile.TemporaryDirectory() as home:
                    os.environ["SPECIES_WB_HOME"] = home
                    with Stage(browser, Explorer(given.run.absolute()), theme=theme, width=width, height=900) as stage:
                        for state in states(stage.page):
                            stage.page.wait_for_timeout(400)
                            path = given.folder / f"explorer-{state}-{theme}-{width}.png"
                            stage.page.screenshot(path=path)
                            print(path)
        browser.close()


if __name__ == "__main__":
    main()
