"What a workbench notebook shows in JupyterLab: a bar that ended early is full, and the link opens the report."

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytest.importorskip("jupyterlab")
sys.path.append(str(Path(__file__).resolve().parents[1]))
from lab_server import LabServer

BAR = """from species_wb import progress
bar = progress.progress(None, "training", 100)
bar.update(89)
bar.close()"""
LINK = """from pathlib import Path
from species_wb.report.notebooks import ReportLink
ReportLink(Path.cwd().parent / "a run" / "report.html")"""
KERNEL = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}


def test_the_bar_ends_full_and_the_link_opens_the_report(workspace, browser):
    for name in ("nbs", "a run"):
        (workspace / name).mkdir()
    (workspace / "a run" / "report.html").write_text("<p>5 of 6 photos are named right.</p>", encoding="utf-8")
    cells = [new_code_cell(BAR), new_code_cell(LINK)]
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), workspace / "nbs" / "shown.ipynb")
    with LabServer(workspace) as lab:
        page = lab.open(browser.new_context(), "nbs/shown.ipynb")
        lab.run_all(page)
        page.locator(".progress-bar-success").wait_for()
        filled = page.locator(".progress-bar").evaluate("bar => bar.offsetWidth / bar.parentElement.clientWidth")
        assert filled > 0.98 and page.locator(".progress-bar-danger").count() == 0
        page.get_by_text("Open the report", exact=True).click()
        page.frame_locator("iframe").get_by_text("5 of 6 photos are named right.").wait_for()
        page.context.close()
