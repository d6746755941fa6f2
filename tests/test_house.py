"""The house stands as designed: notebooks are the source, layers hold, what must start fast does."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))
LIBRARY = sorted((ROOT / "nbs" / "lib").rglob("*.ipynb"))
sys.path.append(str(ROOT / "benchmarks"))
from house import ROOMS, imports, maps, module_of, place, room_of

PLACE = {module_of(n): place(n) for n in LIBRARY}
NO_TORCH = """core progress workspace runs fields csv_form contracts predictions taxa common_names taxonomy roll_up regional_list append_only doctor
    photos.reading photos.exif photos.damage photos.jpeg_damage photos.headers photos.depth photos.pixels photos.items
    photos.corruptions photos.corrections
    photos.corrected photos.leftovers photos.files photos.tables photos.credits photos.films photos.video photos.addresses photos.streams
    photos.archives photos.units photos.sources photos.groups photos.splits photos.findings photos.findings_text
    photos.inspection photos.scan photos.times photos.file_times photos.sites
    simulate.pencil simulate.vertebrates simulate.arthropods simulate.plants simulate.animals simulate.scenery
    simulate.ecology simulate.visits simulate.scene simulate.survey simulate.cameras simulate.camera_visits simulate.camera_survey
    metrics.intervals metrics.calibration metrics.scores metrics.mistakes metrics.reliability metrics.paired
    metrics.gain metrics.average_precision metrics.prevalence metrics.confusions metrics.conformal metrics.coverage metrics.risk metrics.promises metrics.novelty
    report.style report.label_places report.pictures report.page report.notebooks
    survey.observations survey.nights survey.zones survey.clocks survey.deployment_forms survey.photo_tables survey.deployments
    survey.proposed survey.stays survey.placed survey.checked survey.events survey.survey_tables survey.effort survey.operation
    survey.camtrapr survey.rates survey.rates_bootstrap survey.numbers
    engine.toy engine.backends engine.load engine.model_checks engine.mix_file engine.model_file engine.speed engine.predict engine.doubt
    engine.turns engine.ensemble engine.occlusion engine.class_activation engine.maps engine.map_check engine.similar
    detect.kinds detect.boxes detect.source detect.letterbox detect.seen detect.descriptions detect.layouts
    detect.decode detect.box_file detect.detector detect.box_json detect.tiles detect.box_tables detect.given
    detect.activation detect.self_boxes detect.repeats detect.repeat_list detect.people detect.drawn
    detect.repeat_page detect.crops detect.answers detect.choose detect.naming
    classify.box_and_whole classify.answers classify.megadetector classify.outputs classify.submission classify.folders classify.copies
    classify.resume classify.known classify.training_photos classify.remaining classify.job classify.ray classify.answered_files classify.arrivals classify.watch_tables
    classify.blurred_copies
    classify.watch
    models.description models.detector_file models.feature_maps models.box_head models.finer_names models.novelty_layer models.ready_made models.calibration_photos models.int8_variants models.int8_gate models.int8 models.names
    train.places train.training_set train.decoded_photos train.worsened train.heads train.shrunk train.choice train.choice_text train.box_windows
    classify.promised classify.named
    train.held_back train.animal_free train.novelty train.left_out train.neighbours train.new_species train.new_species_text train.add_species models.added_class
    evaluate.plots evaluate.confusion_plot evaluate.looks evaluate.run_plots evaluate.evaluation evaluate.scoring
    evaluate.boxes evaluate.evaluation_text evaluate.evaluation_tables evaluate.trust_text evaluate.training_plots evaluate.robustness
    evaluate.robustness_text evaluate.subgroups evaluate.evaluation_galleries evaluate.photo_sources evaluate.bursts
    evaluate.mistake_maps evaluate.travel evaluate.declines evaluate.trust_page evaluate.promises_kept evaluate.seeds evaluate.ensemble_gain evaluate.model_card evaluate.evaluation_page
    evaluate.compare_runs evaluate.compare evaluate.compare_times evaluate.compare_text evaluate.compare_tables
    evaluate.compare_classes evaluate.compare_plots evaluate.compare_page
    curate.predictions curate.confusions curate.correct curate.one_photo
    publish.contents publish.private publish.finished publish.readme publish.crate publish.parts publish.archive
    apps.cells apps.controls apps.no_delay apps.visits apps.sources apps.live apps.player apps.camera_messages apps.camera_view
    apps.camera_controls apps.camera apps.explorer_words apps.explorer_views apps.explorer_controls
    apps.explorer_panel apps.explorer apps.ports apps.web_access apps.web_answers apps.serve apps.lab
    cli_models cli_answers cli_photos cli_detect cli_survey cli""".split()
NO_PANDAS = """core progress workspace runs fields csv_form contracts predictions taxa common_names taxonomy roll_up regional_list append_only doctor
    photos.reading photos.exif photos.damage photos.jpeg_damage photos.headers photos.depth photos.pixels photos.items
    photos.corruptions photos.corrections
    photos.corrected photos.leftovers photos.files photos.tables photos.credits photos.films photos.video photos.addresses photos.streams
    photos.archives photos.units photos.sources photos.groups photos.splits photos.findings photos.findings_text
    photos.inspection photos.scan photos.times photos.file_times photos.sites
    metrics.conformal metrics.risk metrics.promises metrics.novelty engine.doubt
    engine.toy engine.backends engine.load engine.model_checks engine.mix_file engine.model_file engine.speed engine.predict
    metrics.intervals metrics.gain
    detect.kinds detect.boxes detect.source detect.letterbox detect.seen detect.descriptions detect.layouts
    detect.decode detect.box_file detect.detector detect.box_json detect.tiles detect.box_tables detect.given
    detect.activation detect.self_boxes detect.repeats detect.repeat_list detect.people detect.drawn
    detect.repeat_page detect.crops detect.answers detect.choose detect.naming
    classify.box_and_whole classify.answers classify.megadetector classify.outputs classify.submission classify.folders classify.copies
    classify.promised classify.named
    classify.resume classify.known classify.training_photos classify.remaining classify.job
    classify.blurred_copies
    survey.observations survey.nights survey.zones survey.clocks survey.deployment_forms survey.deployments survey.stays
    apps.ports apps.lab
    cli_models cli_answers cli_photos cli_detect cli_survey cli""".split()


def cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def imported(module: str) -> set[str]:
    "The modules of ours that a module imports, at the top or inside functions, relatively or absolutely."
    return imports(ast.parse((ROOT / "species_wb" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")), module) & set(PLACE)


@pytest.mark.parametrize("module", PLACE)
def test_a_module_imports_only_from_earlier_rooms_and_lower_numbers(module):
    higher = {m for m in imported(module) if PLACE[m] >= PLACE[module]}
    assert not higher, f"{module} {PLACE[module]} imports {higher}"


def test_passing_through_a_room_imports_nothing():
    rooms = {p.parent.name for p in (ROOT / "species_wb").glob("*/*.py")}
    assert rooms == {room_of(module) for module in PLACE} - {"", "cli"} and rooms <= set(ROOMS)
    assert [room for room in rooms if (ROOT / "species_wb" / room / "__init__.py").read_text(encoding="utf-8")] == []


def test_exported_code_is_what_the_notebooks_say(tmp_path):
    for name in ("nbs", "species_wb", "settings.ini", "README.md", "setup.py"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    for module in (tmp_path / "species_wb").rglob("*.py"):
        if module != tmp_path / "species_wb" / "__init__.py":
            module.unlink()
    subprocess.run([str(Path(sys.executable).parent / "nbdev_export")], cwd=tmp_path, check=True, capture_output=True)
    made, here = ({str(p.relative_to(root)): p.read_text(encoding="utf-8") for p in (root / "species_wb").rglob("*.py")} for root in (tmp_path, ROOT))
    assert set(made) == set(here), "a module without a notebook, or a notebook not exported: run nbdev_export"
    assert [n for n in made if made[n] != here[n]] == [], "edited by hand, or not exported: run nbdev_export"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_module_is_untracked():
    said = subprocess.run(["git", "status", "--porcelain", "species_wb", "nbs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line for line in said.splitlines() if line.startswith("??")] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: str(n.relative_to(ROOT / "nbs")))
def test_notebooks_are_clean_and_small(notebook):
    assert notebook.stat().st_size < 200_000
    found = json.loads(notebook.read_text(encoding="utf-8"))
    assert found["metadata"]["kernelspec"]["language"] == "python"  # papermill needs it
    ids = [c["id"] for c in found["cells"]]
    assert len(ids) == len(set(ids))
    for cell in found["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
        assert cell.get("execution_count") is None
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error" and len(json.dumps(output)) < 80_000


@pytest.mark.parametrize("notebook", LIBRARY, ids=module_of)
def test_a_library_notebook_is_a_chapter(notebook):
    text = [c for c in cells(notebook) if c["cell_type"] == "markdown"]
    first = "".join(text[0]["source"])
    assert first.startswith(f"# {notebook.stem.split('_', 1)[1]}\n") and "\n> " in first
    assert not re.search(r"^- .*:", first, re.M), "nbdev takes such a line for front matter, and warns: begin it with *"
    code = ["".join(c["source"]) for c in cells(notebook) if c["cell_type"] == "code"]
    assert any("assert" in c for c in code if not c.startswith("#| export")), "no example asserts anything"


WITHOUT = """
import json, sys, traceback
class Absent:  # not None in sys.modules: scipy looks there for torch, and would take the None for it
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
modules, absent = json.loads(sys.argv[1])
sys.meta_path.insert(0, Absent())
for module in modules:
    try:
        __import__(f"species_wb.{module}")
        said = ""
    except BaseException:
        said = traceback.format_exc()
    print(json.dumps([module, said]))
assert not {name.split(".")[0] for name, found in sys.modules.items() if found is not None} & set(absent)
"""
HEAVY, HEAVIER = ["torch", "torchvision", "timm"], ["pandas", "scipy", "sklearn", "imagehash", "matplotlib"]


@pytest.fixture(scope="module")
def imported_without() -> dict[str, str]:
    "What each light module said when it was imported where the heavy libraries are not: the first to ask for one names it."
    said: dict[str, str] = {}
    lighter = [module for module in NO_TORCH if module in NO_PANDAS]
    for modules, absent in ((lighter, HEAVY + HEAVIER), (sorted({*NO_TORCH} - {*lighter}), HEAVY)):
        asked = json.dumps([modules, absent])
        done = subprocess.run([sys.executable, "-c", WITHOUT, asked], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said |= map(json.loads, done.stdout.splitlines())
    return said


@pytest.mark.parametrize("module", NO_TORCH)
def test_a_light_module_imports_without_torch(module, imported_without):
    assert imported_without[module] == ""


def test_the_other_tests_hold_no_torch():
    "Make runs those that do apart, so that the processes of the others stay small: its list is whole."
    apart = re.search(r"^WITH_TORCH := .*?,(.*)\)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1].split()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree, light = ast.parse(path.read_text(encoding="utf-8")), {*NO_TORCH, "__version__"}
        for node in tree.body if str(path.relative_to(ROOT / "tests")) not in apart else ():
            names = [a.name for a in getattr(node, "names", [])]
            module = getattr(node, "module", None) or ""
            from_room = module.removeprefix("species_wb").strip(".")
            ours = [] if not module.startswith("species_wb") else [from_room] if from_room in PLACE else [f"{from_room}.{n}".strip(".") for n in names]
            assert not {*names, module.split(".")[0]} & {"torch", "torchvision", "timm"} and set(ours) <= light, f"{path.name}: {ast.unparse(node)}"


def test_nothing_imports_the_developers_tools():
    for path in (ROOT / "species_wb").rglob("*.py"):
        if path.name != "_modidx.py":
            assert not re.search(r"^\s*(from|import) (nbdev|fastcore|pytest)", path.read_text(encoding="utf-8"), re.M), path.name


def test_importing_does_nothing(tmp_path):
    code = "import random, numpy, os; a = random.getstate(), numpy.random.get_state()[1].tolist(), set(os.listdir('.'))\nimport species_wb.train.fit, species_wb.report.page, species_wb.simulate.survey\nassert a == (random.getstate(), numpy.random.get_state()[1].tolist(), set(os.listdir('.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout and not done.stderr, done.stderr


def test_readme_is_made_from_index():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for cell in cells(ROOT / "nbs" / "index.ipynb"):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            assert source.strip() in readme, "README.md is older than nbs/index.ipynb: make readme"


def test_the_map_is_what_the_notebooks_say():
    made = maps()
    assert [str(path) for path, text in made.items() if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text] == [], "older than the notebooks or than ROOMS: make map"
    there = {path.relative_to(ROOT) for path in (ROOT / "nbs" / "lib").rglob("README.md")}
    assert there == {path for path in made if path.name == "README.md"}, "a room without a README.md, or a README.md without a room: make map"
    assert {room_of(module) for module in PLACE} == {"", "cli"} | {path.parent.name for path in there} - {"lib"}
    for module in PLACE:  # every module stands in the map once, and in its room's
        room = room_of(module)
        readme = (ROOT / "nbs" / "lib" / ("" if room == "cli" else room) / "README.md").read_text(encoding="utf-8")
        assert (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").count(f"[`{module}`]") == readme.count(f"[`{module}`]") == 1, module


def test_settings_are_the_one_truth():
    from importlib.metadata import metadata

    import species_wb

    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    stated = re.search(r"^version = (.*)$", settings, re.M)[1]
    assert stated == species_wb.__version__ == metadata("species_wb")["Version"]
    assert stated in (ROOT / "CITATION.cff").read_text(encoding="utf-8") and stated in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_meet_the_requirements():
    from packaging.requirements import Requirement
    from packaging.version import Version

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, pin = line.split("==")
        pinned[name.lower().replace("_", "-")] = Version(pin)
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    for line in re.findall(r"^\w*requirements = (.*)$", settings, re.M):
        for need in map(Requirement, line.split()):
            assert pinned[need.name.lower()] in need.specifier, need


def required() -> set[str]:
    "Name all that this package and its extras need, on any system and any Python that it runs on, as the installed packages say."
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.markers import default_environment
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    systems = [("linux", "Linux", "posix"), ("win32", "Windows", "nt"), ("darwin", "Darwin", "posix")]
    environments = [
        default_environment()
        | {"sys_platform": platform, "platform_system": system, "os_name": name, "platform_machine": machine}
        | {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"}
        for platform, system, name in systems for machine in ("x86_64", "aarch64") for minor in range(11, 15)
    ]  # fmt: skip
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    waiting = [Requirement(need) for line in re.findall(r"^\w*requirements = (.*)$", settings, re.M) for need in line.split()]
    seen = set()
    while waiting:
        need = waiting.pop()
        name, extras = canonicalize_name(need.name), frozenset(need.extras)
        if (name, extras) not in seen:
            seen.add((name, extras))
            try:
                lines = requires(name) or []
            except PackageNotFoundError:  # another system's
                continue
            for line in map(Requirement, lines):
                some = ({**one, "extra": extra} for one in environments for extra in {"", *extras})
                if line.marker is None or any(map(line.marker.evaluate, some)):
                    waiting.append(line)
    return {name for name, _ in seen}


@pytest.mark.skipif(sys.platform != "linux", reason="the packages that say what torch needs on Linux are installed only there")
def test_constraints_name_only_what_something_requires():
    from packaging.utils import canonicalize_name

    pinned = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert pinned - required() == set(), "nothing requires these: take them out of constraints.txt"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_repository_names_no_private_place():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    private = re.compile(b"|".join(re.escape(place.encode()) for place in (f"{ROOT}/", f"{Path.home()}/", "py" + "pi.org", "files.python" + "hosted")))
    for name in filter(None, tracked):
        assert not (ROOT / name).exists() or not private.search((ROOT / name).read_bytes()), name


def test_the_help_answers_without_the_heavy_libraries():
    code = "import sys; sys.argv = ['species-wb', '--help']\nfrom species_wb.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'torch', 'pyarrow', 'onnxruntime', 'pandas', 'scipy', 'papermill', 'matplotlib'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:] + done.stderr


def test_the_example_report_is_small_simulated_and_asks_for_nothing():
    example = ROOT / "reports" / "example" / "report.html"
    text = example.read_text(encoding="utf-8")
    assert example.stat().st_size < 1_500_000 and "simulated" in text and text.count("<img") > 10
    assert re.findall(r"""(?:src|href)=["'](?!data:|\#)""", text) == [] and text.count("<script") == text.count("script-src 'sha256-")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(reports/example/report.html)" in readme and "(reports/example/report.png)" in readme
