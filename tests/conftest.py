"""What the tests share: real photos, a browser, a workspace of their own."""

import ctypes
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # two workers with two threads each wait for one another more than they work
    os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema would build a grammar that takes over a second
signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C is heard whatever started the tests: what runs in the background ignores it, and so would all its children

ROOT = Path(__file__).resolve().parent.parent
TIMES = int(os.environ.get("SWB_EXAMPLES", "1"))  # the same examples each time; with 2 and more, that many times as many, and others each time


def examples(n: int) -> settings:
    "How many examples hypothesis tries."
    return settings(max_examples=n * TIMES, derandomize=TIMES == 1, deadline=None)


LACKED = {"photos", "chromium", "wordnet", "weights", "survey_data"}  # fixtures of what a machine may lack
FIRST = "cli finetune run papermill watch architectures camera camera_in_lab explorer lab job serve plots house".split()  # the longest: begun last, one would go on alone


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    "SWB_ONLY=lacked runs what was skipped where photos, Chromium and the like were missing. SWB_ORDER=7 runs the tests in an order of its own: none may need another one before it."
    if os.environ.get("SWB_ONLY") == "lacked":
        others = [item for item in items if not LACKED & set(item.fixturenames)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if LACKED & set(item.fixturenames)]
    if seed := os.environ.get("SWB_ORDER"):
        return random.Random(seed).shuffle(items)
    place = {f"test_{name}": k for k, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_terminal_summary(terminalreporter) -> None:
    "What was skipped and why, a line a reason."
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    for reason, n in reasons.most_common():
        terminalreporter.write_line(f"Skipped, {n} test{'s' * (n > 1)}: {reason}")


def named(variable: str) -> list[str]:
    return os.environ.get(variable, "").split(",")


def given(what: str, place: str | Path | None, otherwise: str) -> Path:
    "Where something lies that a machine may lack: without it the test is skipped with its reason, or fails where SWB_REQUIRE names it. SWB_WITHOUT plays a machine that lacks it."
    if place and Path(place).exists() and what not in named("SWB_WITHOUT"):
        return Path(place)
    if what in named("SWB_REQUIRE"):
        pytest.fail(f"SWB_REQUIRE asks for {what}: {otherwise}")
    pytest.skip(otherwise)


@pytest.fixture(scope="session")
def photos() -> Path:
    "Real photos: train/<Class>/*.jpg and test/<Class>/*.jpg."
    folder = Path(os.environ.get("SWB_PHOTOS", ROOT.parent / "shared" / "photos")).resolve()
    return given("photos", folder / "train", "no real photos here: set SWB_PHOTOS to a folder that holds train/<Class> and test/<Class>").parent


@pytest.fixture(scope="session")
def weights() -> Path:
    "Published weights, as FOLDER/torch/hub/checkpoints and FOLDER/*.pth."
    return given("weights", ROOT.parent / "shared" / "weights", "no weights beside this clone, in shared/weights")


@pytest.fixture(scope="session")
def survey_data() -> Path:
    "Real surveys with known answers: reference/ (camtrapR's sample and others) and camtrap-dp/example/."
    return given("survey_data", ROOT.parent / "shared" / "survey", "no real surveys beside this clone, in shared/survey")


@pytest.fixture(scope="session")
def wordnet() -> Path:
    "WordNet's nouns."
    return given("wordnet", "/usr/share/wordnet/data.noun", "no WordNet here: install the package wordnet-base")


@pytest.fixture(scope="session")
def chromium():
    "Start headless Chromiums through Playwright: chromium(*flags) → browser."
    playwright = pytest.importorskip("playwright.sync_api")
    path = given("browser", shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome"), "no Chromium here: install the package chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as p:  # one for all: it has an event loop of its own
        yield lambda *more: p.chromium.launch(executable_path=str(path), args=[*flags, *more])


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


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    "A cache of this test's own."
    monkeypatch.setenv("SPECIES_WB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path) -> Path:
    "A model file that tells red from green."
    from species_wb.engine import toy

    return toy.write_toy(tmp_path / "tiny.onnx")


def once(name: str, make: Callable[[Path], None], factory: pytest.TempPathFactory) -> Path:
    "A folder that one of the workers makes and the others wait for: look at it, change nothing in it. It lies in the folder that SWB_TOGETHER names, where the next run of the tests finds it."
    base = factory.getbasetemp()
    folder = Path(os.environ.get("SWB_TOGETHER") or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)) / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (done := folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def survey(tmp_path_factory) -> Path:
    "A small simulated survey."
    from species_wb.simulate.survey import survey

    name = "survey with 'quotes' é"
    return once("simulated", lambda folder: survey(folder / name, photos=240, size=128, seed=3), tmp_path_factory) / name


@pytest.fixture(scope="session")
def few_photos(survey, tmp_path_factory) -> Path:
    "Eight photos of each of three classes, where any photos will do."

    def copy(folder: Path) -> None:
        for label in ("Aves", "Fungi", "Plantae"):
            (folder / survey.name / label).mkdir(parents=True)
            for photo in sorted((survey / label).glob("*.jpg"))[:8]:
                shutil.copy(photo, folder / survey.name / label)

    return once("few", copy, tmp_path_factory) / survey.name


@pytest.fixture(scope="session")
def trained(survey, tmp_path_factory) -> Path:
    "A finished run folder: a probe of efficientnet_lite0 on the small survey, made as a person makes it."

    def train(home: Path) -> None:
        command = [str(Path(sys.executable).parent / "species-wb"), "train", "efficientnet_lite0", "--photos", str(survey)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SPECIES_WB_HOME": str(home)}, cwd=home)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (run,) = (home / "reports" / "train").iterdir()
        (run / "said.txt").write_text(done.stdout, encoding="utf-8")

    return next((once("trained", train, tmp_path_factory) / "reports" / "train").iterdir())


@pytest.fixture(scope="session")
def ready_made_cache(tmp_path_factory) -> Path:
    "A cache in which the ready-made model lies: making it takes half a minute."

    def make(folder: Path) -> None:
        command = [str(Path(sys.executable).parent / "species-wb"), "export", "ready-made", "--out", str(folder / "made.onnx")]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SPECIES_WB_CACHE": str(folder / "cache")})
        assert done.returncode == 0, done.stderr

    return once("ready-made", make, tmp_path_factory) / "cache"


def give_memory_back() -> None:
    "What is not needed any more goes back to the machine: the allocator would keep it."
    gc.collect()
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(scope="module", autouse=True)
def memory_given_back():
    gc.freeze()  # what is imported stays: going through all of it for garbage takes half a second each time
    yield
    gc.unfreeze()
    give_memory_back()
