"The report is one file that asks nothing of any network; a notebook is run with its parameters or refused with a sentence."

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import onnx
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from species_wb import contracts
from species_wb.evaluate import evaluation
from species_wb.report import notebooks
from species_wb.report.page import Page
from species_wb.core import UserError, read_json
from species_wb.runs import run_state, set_state

HOSTILE = ['<img src=x onerror="alert(1)">', '"><script>alert(2)</script>', "it's {{ 7*7 }} & \u202eoops", "a\nb\0c", "Säugetier 哺乳", "\udcff" + "x" * 300, "</style><style>*{display:none}"]


def jpeg(seed: int, side: int = 180) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def a_page(photos: int = 6) -> Page:
    figure = Figure(figsize=(12, 4))
    figure.subplots().plot(np.random.default_rng(0).random(100))
    page = Page(HOSTILE[0], HOSTILE[1], badge="simulated")
    page.headline(HOSTILE[2], HOSTILE)
    for title in HOSTILE:
        page.section(title, title)
        page.warn(title)
    page.facts(dict(zip(HOSTILE, HOSTILE, strict=True)))
    page.table([[name, 0.5, *HOSTILE] for name in HOSTILE], ["class", "n", *HOSTILE], HOSTILE[0])
    page.figure(figure, HOSTILE[1], HOSTILE[0])
    page.gallery([{"photo": jpeg(n), "name": HOSTILE[n % len(HOSTILE)], "alt": HOSTILE[0], "lines": HOSTILE[:2]} for n in range(photos)], HOSTILE[1])
    page.gallery([{"photo": None, "name": HOSTILE[3], "alt": "", "lines": []}])
    return page


def opened(browser, path: Path, width: int):
    "Open a file with every other request refused; return the page and what it asked for or complained of."
    context, asked = browser.new_context(viewport={"width": width, "height": 800}), []
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    tab = context.new_page()
    tab.on("request", lambda request: asked.append(request.url) if not request.url.startswith("data:") else None)
    tab.on("dialog", lambda dialog: (asked.append("dialog"), dialog.dismiss()))
    tab.on("console", lambda message: asked.append(message.text))
    tab.goto(path.as_uri())
    return tab, [url for url in asked if url != path.as_uri()]


@pytest.mark.parametrize("width", [360, 1280])
def test_a_report_shows_everything_and_asks_for_nothing(browser, tmp_path, width):
    tab, asked = opened(browser, a_page().write(tmp_path / "report.html"), width)
    assert asked == []
    assert tab.evaluate("[...document.images].map(i => i.naturalWidth > 0 && i.getBoundingClientRect().width > 0)") == [True] * 7
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.context.close()


def test_hostile_names_are_shown_and_do_nothing(browser, tmp_path):
    tab, asked = opened(browser, a_page().write(tmp_path / "report.html"), 800)
    assert asked == [] and tab.locator("img[src=x], [onerror]").count() == 0 and tab.locator("script").count() == 1  # its own
    text = tab.locator("body").inner_text()
    for name in (HOSTILE[0], HOSTILE[1], "it's {{ 7*7 }} & \\u202eoops", "a\\nb\\x00c", "Säugetier 哺乳", "</style><style>*{display:none}"):
        assert name in text, name
    assert tab.locator("h2").count() == len(HOSTILE) == len(set(tab.evaluate("[...document.querySelectorAll('h2')].map(h => h.id)")))
    tab.context.close()


def test_a_report_is_well_built(browser, tmp_path):
    tab, _ = opened(browser, a_page().write(tmp_path / "report.html"), 800)
    assert tab.evaluate("document.documentElement.lang") == "en" and tab.locator("h1").count() == 1
    assert tab.locator("img:not([alt])").count() == 0 and tab.locator("th:not([scope])").count() == 0
    assert tab.evaluate("[...document.querySelectorAll('nav a')].every(a => document.getElementById(a.hash.slice(1)))")
    assert tab.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "auto"
    tab.context.close()


def test_a_report_stays_under_its_limit(tmp_path):
    page = a_page(photos=80)
    large, small = (page.write(tmp_path / "report.html", limit=limit).stat().st_size for limit in (50_000_000, 600_000))
    assert small <= 600_000 < large
    assert page.write(tmp_path / "again.html", limit=50_000_000).stat().st_size == pytest.approx(large, abs=100)  # the page itself keeps its pictures


def test_a_report_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = a_page(1).write(tmp_path / "report.html")
    before = path.read_bytes()
    page = a_page(1)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="disk is full"):
        page.write(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["report.html"]


@pytest.fixture
def tiny(workspace) -> Path:
    "A workspace with one small notebook in it."
    cells = [
        new_code_cell('size = 3  # pixels\nname = "x"\nrate = 1e-3', metadata={"tags": ["parameters"]}),
        new_code_cell("import os, sys, time\nfrom species_wb.core import UserError\nprint('size', size, name, os.environ['SPECIES_WB_PROGRESS'])\nprint('aside', file=sys.stderr)"),
        new_code_cell("if name == 'bad':\n    raise UserError('photos/1.jpg is empty: copy it again.')\nif name == 'bug':\n    1 / 0\nif name == 'long':\n    print('pid', os.getpid(), flush=True)\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        print('the kernel laments', file=sys.stderr, flush=True)\n        raise"),
    ]
    (workspace / "nbs").mkdir()
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}), workspace / "nbs" / "tiny.ipynb")
    return workspace


def test_the_parameters_of_a_notebook_are_known(tiny):
    assert notebooks.notebook_parameters("tiny") == {"size": 3, "name": "x", "rate": 1e-3}
    with pytest.raises(UserError, match="tinny.ipynb was not found"):
        notebooks.notebook_parameters("tinny")


def test_a_notebook_runs_with_its_parameters_from_any_folder(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hostile = "it's a \"name\" {with} \\n Säugetier"
    output = notebooks.run_notebook("tiny", Path("some {odd} folder") / "tiny.ipynb", {"size": 4, "name": hostile})
    assert output == tmp_path / "some {odd} folder" / "tiny.ipynb" and output.is_file()
    out, err = capsys.readouterr()
    assert f"size 4 {hostile} lines" in out and "aside" in err
    assert "SPECIES_WB_PROGRESS" not in os.environ


def test_an_unknown_parameter_is_refused_naming_the_nearest(tiny, tmp_path):
    with pytest.raises(UserError, match="^tiny has no parameter sise: did you mean size\\?$"):
        notebooks.run_notebook("tiny", tmp_path / "out.ipynb", {"sise": 4})
    assert not (tmp_path / "out.ipynb").exists()


def test_a_notebook_is_never_written_over_itself(tiny):
    before = (tiny / "nbs" / "tiny.ipynb").read_bytes()
    with pytest.raises(UserError, match="is the notebook itself"):
        notebooks.run_notebook("tiny", tiny / "nbs" / "tiny.ipynb", {})
    assert (tiny / "nbs" / "tiny.ipynb").read_bytes() == before


def test_a_sentence_for_people_comes_through_as_one(tiny, tmp_path):
    with pytest.raises(UserError) as caught:
        notebooks.run_notebook("tiny", tmp_path / "out.ipynb", {"name": "bad"})
    assert str(caught.value) == "photos/1.jpg is empty: copy it again."


def test_a_bug_keeps_its_traceback_and_the_partial_notebook(tiny, tmp_path):
    with pytest.raises(Exception, match="ZeroDivisionError") as caught:
        notebooks.run_notebook("tiny", tmp_path / "out.ipynb", {"name": "bug"})
    assert not isinstance(caught.value, UserError) and "ZeroDivisionError" in (tmp_path / "out.ipynb").read_text()


def test_ctrl_c_ends_the_kernel_too(tiny, tmp_path):
    code = f"from species_wb.report.notebooks import run_notebook\nrun_notebook('tiny', {str(tmp_path / 'out.ipynb')!r}, {{'name': 'long'}})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kernel = int(next(line for line in process.stdout if line.startswith("pid")).split()[1])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in err and "laments" not in err, err
    for _ in range(50):
        try:
            os.kill(kernel, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        os.kill(kernel, signal.SIGKILL)
        pytest.fail("the kernel was still there five seconds later")


def test_a_notebook_may_run_another(tiny, tmp_path):
    inner = f"from species_wb.report.notebooks import run_notebook\nprint(run_notebook('tiny', {str(tmp_path / 'inner.ipynb')!r}, {{'size': 7}}))"
    nbformat.write(new_notebook(cells=[new_code_cell("size = 1", metadata={"tags": ["parameters"]}), new_code_cell(inner)], metadata=nbformat.read(tiny / "nbs" / "tiny.ipynb", 4).metadata), tiny / "nbs" / "outer.ipynb")
    notebooks.run_notebook("outer", tmp_path / "outer.ipynb", {})
    assert "size 7" in (tmp_path / "outer.ipynb").read_text() and "size 7" in (tmp_path / "inner.ipynb").read_text()


def red_or_green(path: Path, training_photos: list[str]) -> Path:
    "A model file that tells red photos from green ones."
    weight = numpy_helper.from_array(np.array([[1, -1], [-1, 1], [0, 0]], np.float32) / 50, "weight")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["embedding"], keepdims=0),
        helper.make_node("MatMul", ["embedding", "weight"], ["logits"]),
    ]
    shapes = [(n, t, s) for n, t, s in (("pixels", TensorProto.UINT8, ["n", 16, 16, 3]), ("logits", TensorProto.FLOAT, ["n", 2]), ("embedding", TensorProto.FLOAT, ["n", 3]))]
    given, *out = [helper.make_tensor_value_info(*shape) for shape in shapes]
    graph = helper.make_graph(nodes, "tiny", [given], out, [weight, numpy_helper.from_array(np.array([1, 2]), "axes")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    info = contracts.ModelInfo(["green", "red"][::-1], [0, 1], contracts.ModelSpec("tiny", 16, (0.5,) * 3, (0.5,) * 3), provenance={"training_photos": training_photos})
    helper.set_model_props(model, {contracts.METADATA_KEY: contracts.info_to_json(info)})
    onnx.save(model, path)
    return path


@pytest.fixture
def coloured(tmp_path) -> Path:
    "Photos in class folders: red, green (one of them mislabelled), and a colour the model does not know."
    rng = np.random.default_rng(0)
    for label, colour, n in (("red", (200, 30, 30), 6), ("green", (30, 200, 30), 6), ("blue", (30, 30, 200), 2)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(n):
            pixels = np.clip(rng.normal(colour if (label, k) != ("green", 0) else (200, 30, 30), 25, (40, 60, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"<b>{k}<b>.png")
    (tmp_path / "photos" / "red" / "broken.png").write_bytes((tmp_path / "photos" / "red" / "<b>0<b>.png").read_bytes()[:200])
    return tmp_path / "photos"


@pytest.mark.slow
def test_any_model_is_evaluated_on_any_labelled_folder(workspace, coloured, tmp_path, browser):
    import hashlib

    trained = hashlib.sha256((coloured / "red" / "<b>5<b>.png").read_bytes()).hexdigest()[:16]
    model = red_or_green(tmp_path / "colours.onnx", [trained])
    notebooks.run_notebook("evaluate", tmp_path / "evaluate.ipynb", {"model": model, "photos": coloured})
    (run,) = (workspace / "reports" / "evaluate").iterdir()
    found = read_json(run / "metrics.json")
    assert run_state(run) == "finished" and run.name.startswith("colours-") and found["headline"].startswith("10 of 11 test photos are named right")
    assert found["test"]["n"] == 11 and len(found["scorings"]) == 1 and found["latency"]["p50"] > 0
    assert any("blue (2)" in s for s in found["left_out"]) and any("1 photo is left out" in s and "trained" in s for s in found["left_out"])
    assert len(contracts.read_table(run / "predictions.parquet")) == 14 and (run / "predictions.csv").is_file()
    tab, asked = opened(browser, run / "report.html", 360)
    assert asked == [] and tab.evaluate("[...document.images].every(i => i.naturalWidth > 0)") and tab.locator("img").count() > 10
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360 and "10 of 11 test photos" in tab.locator(".headline").inner_text()
    assert "<b>0<b>.png" in tab.locator("main").inner_text() and str(tmp_path) not in tab.content()
    tab.context.close()


def test_a_run_is_evaluated_again_and_keeps_what_training_wrote(workspace, coloured, tmp_path):
    rows = [{"path": str(p.relative_to(coloured)), "label": p.parent.name, "split": "test" if p.name < "<b>3" else "train", "status": "ok", "width": 60, "height": 40, "source": "simulated"}
            for p in sorted(coloured.glob("*/<*.png")) if p.parent.name != "blue"]
    run = workspace / "run"
    contracts.write_table(contracts.manifest_table(rows, coloured), run / "manifest.parquet")
    red_or_green(run / "model.onnx", [])
    (run / "metrics.json").write_text(json.dumps({"validation": {"accuracy": 0.9}, "scorings": [{"at": "then"}]}))
    (run / "training.json").write_text(json.dumps({"method": "probe", "sentences": ["It was fitted by hand."], "substitutions": ["No weights: random ones."]}))
    set_state(run, "finished")
    command = [str(Path(sys.executable).parent / "species-wb"), "evaluate", str(run)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, html = read_json(run / "metrics.json"), (run / "report.html").read_text(encoding="utf-8")
    assert found["validation"] == {"accuracy": 0.9} and [s["at"] == "then" for s in found["scorings"]] == [True, False] and run_state(run) == "finished"
    assert "simulated test photos" in found["headline"] and 'class="badge"' in html and "It was fitted by hand." in html and "No weights: random ones." in html


def test_nothing_to_evaluate_is_one_sentence(workspace, tmp_path):
    with pytest.raises(UserError, match="Nothing to evaluate"):
        notebooks.run_notebook("evaluate", tmp_path / "out.ipynb", {})
    missing = {"model": tmp_path / "x.onnx", "photos": tmp_path}
    for parameters, said in (({"run": tmp_path}, "is not a run"), (missing, "x.onnx is not there")):
        with pytest.raises(UserError, match=said):
            evaluation.begin(**parameters)
    assert not (workspace / "reports").exists()
