"""What the tests share: real photos, a browser, a workspace of their own."""

import os
import shutil
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # two workers with two threads each wait for one another more than they work
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


def lacking(what: str, reason: str):
    "Skip with a reason, or fail where SWB_REQUIRE says that this must be here."
    if what in os.environ.get("SWB_REQUIRE", "").split(","):
        pytest.fail(f"SWB_REQUIRE asks for {what}: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def photos() -> Path:
    "Real photos: train/<Class>/*.jpg and test/<Class>/*.jpg."
    folder = Path(os.environ.get("SWB_PHOTOS", ROOT.parent / "shared" / "photos")).resolve()
    if not (folder / "train").is_dir():
        lacking("photos", f"no real photos at {folder}: set SWB_PHOTOS")
    return folder


@pytest.fixture(scope="session")
def chromium():
    "Start headless Chromiums through Playwright: chromium(*flags) → browser."
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        lacking("browser", "no Chromium found: install the package chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as p:  # one for all: it has an event loop of its own
        yield lambda *more: p.chromium.launch(executable_path=path, args=[*flags, *more])


@pytest.fixture(scope="session")
def browser(chromium):
    "A headless Chromium through Playwright."
    browser = chromium()
    yield browser
    browser.close()


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    "A workspace of this test's own."
    home = tmp_path / "workspace"
    home.mkdir()
    monkeypatch.setenv("SPECIES_WB_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def survey(tmp_path_factory) -> Path:
    "A small simulated survey, made once."
    from species_wb.simulate import survey

    folder = tmp_path_factory.mktemp("simulated") / "survey with 'quotes' é"
    survey(folder, photos=240, size=128, seed=3)
    return folder


@pytest.fixture(scope="session")
def trained(survey, tmp_path_factory) -> Path:
    "A finished run folder: a probe of efficientnet_lite0 on the small survey, made as a person makes it."
    import subprocess
    import sys

    home = tmp_path_factory.mktemp("trained")
    command = [str(Path(sys.executable).parent / "species-wb"), "train", "efficientnet_lite0", "--photos", str(survey)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SPECIES_WB_HOME": str(home)}, cwd=home)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = next((home / "reports" / "train").iterdir())
    (run / "said.txt").write_text(done.stdout, encoding="utf-8")
    return run
