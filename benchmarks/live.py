"""How fast the camera panel is: JupyterLab in headless Chromium with a fake camera, on the cores that both share.

    .venv/bin/python benchmarks/live.py                     # stock server, no-delay server, a model that takes 300 ms
    .venv/bin/python benchmarks/live.py --minutes 10        # one long run: do delay and memory stay flat?

The camera alternates two photos every 1.5 seconds (of --photos, or drawn ones). A scene change counts from the moment the page has the first frame of the
new scene until the label that names it is painted. Frames a second are those that were answered; the fake camera makes 30.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "apps")]
import numpy as np  # noqa: E402
from lab_server import LabServer  # noqa: E402
from PIL import Image  # noqa: E402
from test_camera import camera_film, with_camera  # noqa: E402

# What happens in the page: when each scene began, and when which label was painted. Also each answer's own delay.
WATCH = """() => {
  const found = window.found = { scenes: [], labels: [], answers: [] }, root = document.querySelector(".swb-view");
  const video = root.querySelector("video"), canvas = document.createElement("canvas"), draw = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(canvas, { width: 4, height: 4 });
  let before = null;
  const look = () => {
    draw.drawImage(video, 0, 0, 4, 4);
    const now = draw.getImageData(0, 0, 4, 4).data;
    if (before && now.reduce((sum, v, k) => sum + Math.abs(v - before[k]), 0) / 64 > 8) found.scenes.push(performance.now());
    before = now;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  const label = root.querySelector(".swb-label");
  new MutationObserver(() => { const text = label.textContent; requestAnimationFrame(() => found.labels.push([performance.now(), text])); }).observe(label, { childList: true, characterData: true, subtree: true });
  root.addEventListener("swb-answer", event => found.answers.push([performance.now(), 1000 * event.detail.delay, 1000 * event.detail.took, event.detail.waiting]));
}"""
FLUENT = "() => new Promise(done => { let n = 0; const begin = performance.now(); const step = now => (n++, now - begin < 2000 ? requestAnimationFrame(step) : done(1000 * n / (now - begin))); requestAnimationFrame(step); })"


def two_photos(folder: Path | None, scratch: Path) -> list[Image.Image]:
    "A bird and a plant, or two drawn scenes."
    if folder:
        return [Image.open(sorted((folder / "test" / name).iterdir())[k]) for name, k in (("Aves", 3), ("Plantae", 5))]
    from species_wb.simulate.survey import survey

    survey(scratch / "drawn", photos=60, size=256, seed=1)
    found = sorted(scratch.glob("drawn/**/*.jpg"))
    return [Image.open(found[0]), Image.open(found[-1])]


def notebook(path: Path, model: str, slow: float = 0.0) -> None:
    "A notebook with one panel, whose model may be made slow."
    lines = ["from species_wb.apps.camera import CameraPanel", f"panel = CameraPanel({model!r})"]
    if slow:
        lines += ["import time", "look = panel.live.look", f"panel.live.look = lambda *a, **k: (time.sleep({slow}), look(*a, **k) | {{'seconds': {slow}}})[1]"]
    cell = {"cell_type": "code", "id": "panel", "metadata": {}, "execution_count": None, "outputs": [], "source": "\n".join([*lines, "panel"])}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")


def opened(lab: LabServer, browser, name: str, **options):
    "The notebook's page, with the camera running and warm."
    context = browser.new_context(permissions=["camera"], viewport={"width": 1280, "height": 900}, **options)
    page = lab.open(context, name)
    lab.run_all(page)
    page.locator(".swb-start").click()
    page.locator(".swb-answer:visible").wait_for()
    page.wait_for_timeout(3000)
    return page


def shares(values: list[float]) -> tuple[float, float]:
    "The median and the 95th percentile."
    return tuple(float(v) for v in np.percentile(values, (50, 95)))


def changes(found: dict) -> list[float]:
    "Milliseconds from each scene's first frame until the label that names it is painted; infinite where that never was. The two scenes have the two commonest labels, in turn."
    labels = found["labels"]
    names = [name for name, _ in Counter(text for _, text in labels).most_common(2)]
    ends, delays = [*found["scenes"][1:], math.inf], []
    for scene, end in zip(found["scenes"], ends, strict=True):
        before = next((text for at, text in reversed(labels) if at < scene), "")
        wanted = names[1] if before == names[0] else names[0]
        delays.append(next((at - scene for at, text in labels if scene <= at < end and text == wanted), math.inf))
    return delays[:-1]  # the last one may not have had its time


def measure(lab: LabServer, browser, name: str, seconds: float) -> dict:
    page = opened(lab, browser, name)
    page.evaluate(WATCH)
    begin = time.monotonic()
    page.wait_for_timeout(1000 * seconds)
    found, took = page.evaluate("() => window.found"), time.monotonic() - begin
    fluent = page.evaluate(FLUENT)
    page.context.close()
    (median, late), (change, change_late) = shares([a[1] for a in found["answers"]]), shares(changes(found))
    model = statistics.median(a[2] for a in found["answers"])
    return {"answered": len(found["answers"]), "rate": len(found["answers"]) / took, "median": median, "late": late, "model": model, "scenes": len(changes(found)),
            "change": change, "change_late": change_late, "waiting": max(a[3] for a in found["answers"]), "fluent": fluent}  # fmt: skip


def memory(pid: int) -> float:
    "Resident megabytes of a process."
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processes(*words: str) -> list[int]:
    "Processes whose command line holds all these words."
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(folder.name))
    return found


def long_run(lab: LabServer, browser, name: str, minutes: float, every: float = 10.0, tell=print) -> list[dict]:
    "A row every few seconds: frames a second, delay, memory of kernel and page."
    page = opened(lab, browser, name)
    page.evaluate(WATCH)
    (kernel,) = processes("ipykernel_launcher", str(lab.folder))
    session, rows = page.context.new_cdp_session(page), []
    session.send("Performance.enable")
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        begin = time.monotonic()
        page.wait_for_timeout(1000 * every)
        found = page.evaluate("() => { const f = window.found, answers = f.answers; f.answers = []; f.labels = []; f.scenes = []; return answers; }")
        session.send("HeapProfiler.collectGarbage")
        metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
        median, late = shares([a[1] for a in found])
        rows.append({"rate": len(found) / (time.monotonic() - begin), "median": median, "late": late, "kernel": memory(kernel), "heap": metrics["JSHeapUsedSize"] / 1e6, "nodes": metrics["Nodes"]})
        tell(" ".join(f"{key} {value:7.1f}" for key, value in rows[-1].items()))
    page.context.close()
    return rows


def parts(rows: list[dict], key: str) -> tuple[float, float]:
    "The median of a run's second and of its last fifth."
    fifth = max(1, len(rows) // 5)
    return statistics.median(row[key] for row in rows[fifth : 2 * fifth]), statistics.median(row[key] for row in rows[-fifth:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=os.environ.get("SWB_PHOTOS") or None, help="a folder with test/Aves and test/Plantae; else drawn scenes")
    parser.add_argument("--model", default="", help="a model file; else the ready-made one (efficientnet_lite0)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=0.0, help="of one long run instead")
    parser.add_argument("--stock", action="store_true", help="the long run on a stock server")
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch_name, sync_playwright() as p:
        scratch = Path(scratch_name)
        film = camera_film(scratch / "two.mjpeg", two_photos(asked.photos, scratch), frames=45)
        import shutil

        browser = p.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox", "--disable-gpu", *with_camera(film)])
        (scratch / "workspace").mkdir()
        notebook(scratch / "workspace" / "fast.ipynb", asked.model)
        notebook(scratch / "workspace" / "slow.ipynb", asked.model, slow=0.3)
        if asked.minutes:
            with LabServer(scratch / "workspace", no_delay=not asked.stock) as lab:
                rows = long_run(lab, browser, "fast.ipynb", asked.minutes)
            for key, unit in (("rate", "frames a second"), ("median", "ms from frame to answer, median"), ("late", "ms, 95 % within"), ("kernel", "MB resident in the kernel"), ("heap", "MB of JavaScript in the page")):
                early, late = parts(rows, key)
                print(f"{unit:<32} second fifth {early:8.1f}   last fifth {late:8.1f}   {late / early - 1:+.1%}")
            return
        print("server     model     frames/s  ms to answer  (95 %)  model ms  scene change ms  (95 %, n)        waiting  page frames/s")
        for server, name in (("stock", "fast"), ("no-delay", "fast"), ("stock", "slow")):
            with LabServer(scratch / "workspace", no_delay=server == "no-delay") as lab:
                m = measure(lab, browser, f"{name}.ipynb", asked.seconds)
            print(f"{server:<10} {name:<8} {m['rate']:>9.1f} {m['median']:>13.0f} {m['late']:>7.0f} {m['model']:>9.0f} {m['change']:>16.0f} {m['change_late']:>8.0f}, {m['scenes']:<5} {m['waiting']:>9} {m['fluent']:>12.0f}", flush=True)


if __name__ == "__main__":
    main()
