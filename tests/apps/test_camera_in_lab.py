"The camera panel in JupyterLab: one server, and a page for each notebook."

import shutil
import time

import pytest
from conftest import ROOT
from PIL import Image

pytest.importorskip("anywidget")
from lab_server import LabServer
from test_camera import GREEN, LIVING, OUTSIDE, RED, TRACKS, camera_film, living, with_camera

from species_wb.apps.lab import _copy as lab_copy
from species_wb.engine import toy

ASK = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const asked = kernel.requestExecute({ code, store_history: false });
  let said = "";
  asked.onIOPub = m => { if (m.header.msg_type === "stream") said += m.content.text; };
  await asked.done;
  return said;
}"""
RUN_CELLS = """async (n) => {
  const { commands, shell } = window.jupyterapp, notebook = shell.currentWidget.content;
  for (let k = 0; k < notebook.widgets.length && n > 0; k++) {
    if (notebook.widgets[k].model.type !== "code") continue;
    notebook.activeCellIndex = k;
    n -= 1;
    await commands.execute("notebook:run-cell");
  }
}"""


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory):
    "A JupyterLab with the live notebook, and in a folder with a copy that names a model of two colours."
    folder = tmp_path_factory.mktemp("lab")
    (folder / "workspace" / "small").mkdir(parents=True)
    model = toy.write_toy(folder / "colours.onnx")
    lab_copy(ROOT / "nbs" / "live.ipynb", {"model": str(model)}, folder / "workspace" / "small")
    cache = {"SPECIES_WB_CACHE": str(folder / "cache")}
    with LabServer(folder / "workspace", [ROOT / "nbs" / "live.ipynb"], environment=cache) as lab:
        yield lab


def test_in_jupyterlab_video_and_record_are_seen_without_scrolling(lab, chromium, tmp_path):
    pictures = [Image.new("RGB", (640, 480), colour) for colour in (RED, GREEN)]
    browser = chromium(*with_camera(camera_film(tmp_path / "two.mjpeg", pictures)))
    context = browser.new_context(permissions=["camera"], viewport={"width": 1440, "height": 900})
    page = lab.open(context, "small/live.ipynb")
    page.evaluate(RUN_CELLS, 2)
    page.locator(".swb-start").wait_for()
    top = "document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0"  # JupyterLab may scroll to the cell that ran
    inside = lambda: page.wait_for_function(f"() => {{ {top}; return ({OUTSIDE})() === 0; }}")  # noqa: E731
    inside()  # as the notebook begins
    page.locator(".swb-start").click()
    page.locator(".swb-label", has_text="red").wait_for()
    inside()  # while the camera runs
    page.locator(".swb-record").click()
    page.locator(".swb-said", has_text="Recording into").wait_for()
    inside()  # while it is recorded
    browser.close()


@pytest.fixture(scope="module")
def opened(lab, chromium, photos, ready_made_cache, tmp_path_factory):
    "The live notebook in JupyterLab, and a page of it whose camera sees a bird and a plant in turn, 1.5 seconds each."
    folder = tmp_path_factory.mktemp("film")
    shutil.copytree(ready_made_cache, lab.workspace.parent / "cache", dirs_exist_ok=True)
    pictures = [Image.open(next(iter(sorted((photos / "test" / name).iterdir())))) for name in ("Aves", "Plantae")]
    browser = chromium(*with_camera(camera_film(folder / "two.mjpeg", pictures, frames=45)))
    context = browser.new_context(permissions=["camera"], viewport={"width": 1280, "height": 900})
    context.add_init_script(TRACKS)
    page = lab.open(context, "live.ipynb")
    lab.run_all(page)
    yield lab, page
    browser.close()


def test_a_control_of_the_panel_moves_a_figure_in_a_cell_of_its_own(opened):
    lab, page = opened
    panel = page.locator(".swb-camera")
    panel.get_by_role("button", name="Start").click()
    panel.locator(".swb-answer:visible").wait_for()
    own = page.locator(".jp-Cell", has_text="interactive_output").locator(".jp-OutputArea-output").first
    own.scroll_into_view_if_needed()
    before, limit = own.locator("img").get_attribute("src"), time.monotonic() + 60
    own.get_by_label("Not sure below, %").fill("95")
    own.get_by_label("Not sure below, %").press("Enter")
    while own.locator("img").get_attribute("src") == before and time.monotonic() < limit:
        page.wait_for_timeout(100)
    assert own.locator("img").get_attribute("src") != before
    panel.get_by_role("button", name="Settings").click()
    assert panel.get_by_label("Not sure below, %").input_value() == "95"  # one control, shown twice
    asked = "print(panel.threshold.value, panel.view.min_score, len(scores) > 0, 0 < panel.view.score <= 1)"
    assert page.evaluate(ASK, asked).split() == ["95.0", "0.95", "True", "True"]
    panel.get_by_label("Not sure below, %").fill("50")
    panel.get_by_label("Not sure below, %").press("Enter")
    panel.get_by_role("button", name="Stop").click()


def test_in_jupyterlab_the_label_follows_two_real_photos_and_the_camera_never_outlives_its_cell(opened, photos):
    lab, page = opened
    lab.run_all(page)
    press = lambda: page.locator(".swb-start").click()  # noqa: E731
    named = lambda name: page.locator(".swb-label", has_text=name).wait_for()  # noqa: E731
    press()
    for name in ("Aves", "Plantae", "Aves"):
        named(name)
    assert page.evaluate(LIVING) == 1
    lab.run_all(page)  # the cell is run again
    page.locator(".swb-hint:visible").wait_for()
    living(page, 0)
    press()
    named("Plantae")
    lab.restart_kernel(page)
    page.locator(".swb-bad", has_text="Python does not answer").wait_for()
    living(page, 0)
    press()  # as the sentence says: no camera may come on that nobody answers
    page.locator(".swb-bad", has_text="Python does not answer").wait_for()
    living(page, 0)
    for _ in range(2):
        lab.run_all(page)
    press()
    named("Aves")
    looking = "sum(t.name == 'looks at frames' for t in threading.enumerate())"
    threads = page.evaluate(ASK, f"import threading; print({looking})")
    assert threads.strip() in ("1", "2"), "a panel of an earlier run goes on"  # the one before may take a second to end
    page.get_by_label("Look at").select_option("Address, folder or film by its path …")
    page.get_by_label("Address, path").fill(str(photos / "test" / "Plantae"))
    page.get_by_label("Address, path").press("Enter")  # which JupyterLab takes away from forms
    named("Plantae")
    page.get_by_label("Look at").select_option(index=0)  # goes on with the camera
    named("Aves")
    lab.close_notebook(page)
    page.wait_for_function("() => window.tracks.every(t => t.readyState === 'ended')")
