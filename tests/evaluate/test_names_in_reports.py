"""Reports for people write each label with the name that people use for it; the files for programs keep the label."""

import inspect
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from species_wb import contracts
from species_wb.core import decimals
from species_wb.engine import predict, speed, toy
from species_wb.engine.model_file import open_model
from species_wb.evaluate import compare_page, evaluation_galleries, evaluation_page, evaluation_text, scoring
from species_wb.evaluate.compare import Comparison
from species_wb.evaluate.compare_runs import ComparedModel, Gathered
from species_wb.evaluate.evaluation import Evaluation
from species_wb.metrics import paired, reliability, scores
from species_wb.metrics.calibration import softmax
from species_wb.report.page import Page


def sections(module) -> list:
    "All functions that write a section of a report."
    found = [getattr(module, name) for name in module.__all__]
    return [f for f in found if inspect.isfunction(f) and [*inspect.signature(f).parameters] == ["page", "results"]]


def bare(html: str, label: str) -> list[str]:
    "Where a page writes a label without its name, except in the names of files and in facts about the model file."
    words = re.sub(r"<(style|script|svg|small).*?</\1>|<dl.*?</dl>", " ", html, flags=re.DOTALL)
    text = " ".join(re.sub(r"<[^>]*>", " | ", words).split())
    return re.findall(rf".{{0,30}}\b{label}\b(?! · |/|\.png)", text)


@pytest.fixture
def judged(tmp_path, workspace):
    "A model that calls red photos Aves and green ones Animalia, and 24 photos, of which one is labelled wrong."
    rows = []
    for k, (label, colour) in enumerate([("Aves", "red")] * 12 + [("Animalia", "green")] * 11 + [("Animalia", "red")]):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        paint = {"red": (200, 30, 30), "green": (30, 200, 30)}[colour]
        noisy = np.random.default_rng(k).normal(paint, 20, (48, 64, 3)).clip(0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / "photos" / label / f"{k}.png")
        rows.append({"path": f"{label}/{k}.png", "label": label, "split": "test", "status": "ok", "width": 64,
                     "height": 48, "sha256": f"{k:064d}", "taken_at": f"2026-05-{k + 1:02}T07:30:00"})
    model = open_model(toy.add_features(toy.write_toy(tmp_path / "two.onnx", ("Aves", "Animalia"))), 1)
    return Evaluation(tmp_path, model, contracts.manifest_table(rows, tmp_path / "photos"), {}, {}, [], [], own=False)


def test_the_evaluation_report_shows_both_names_and_its_metrics_keep_the_label(judged, tmp_path):
    scored = scoring.score(judged, predict.predict_manifest(judged.model, judged.manifest), resamples=20)
    latency = speed.latency(judged.model)
    results, page = evaluation_page.Results(judged, scored, latency), Page("Two classes")
    page.headline(*evaluation_text.headline(judged, scored))
    for section in (*sections(evaluation_page), *sections(evaluation_galleries)):
        section(page, results)
    html = page.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("Aves · birds") > 5 and "is Animalia · other animals" in html
    assert bare(html, "Aves") == [] and bare(html, "Animalia") == []
    scoring.record(judged, scored, latency, "")
    kept = json.loads((judged.run / "metrics.json").read_text())["test"]["classes"]
    assert [row["label"] for row in kept] == ["Aves", "Animalia"]


def test_the_galleries_show_the_deepest_name_under_the_answer_and_say_so(judged, tmp_path):
    from test_named import named_model

    model = open_model(named_model(tmp_path / "named.onnx", labels=("Aves", "Animalia")), 1)
    judged = replace(judged, model=model)
    answers = predict.predict_manifest(model, judged.manifest)
    results = evaluation_page.Results(judged, scoring.score(judged, answers, resamples=20), {})
    mistake = next(row for row in answers.to_pylist() if row["label"] == "Aves" and row["truth"] == "Animalia")
    page = Page("Two classes")
    evaluation_galleries.surest_mistakes(page, results)
    html = page.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"→ blackbird (Turdus merula) {decimals(mistake['taxon_score'])}" in html and evaluation_galleries.FINER in html
    plain = Page("No finer names")
    evaluation_galleries.surest_mistakes(plain, replace(results, scored=replace(results.scored, rows=[{**row, "taxon": None} for row in results.scored.rows])))
    html = plain.write(tmp_path / "plain.html").read_text(encoding="utf-8")
    assert "→ blackbird" not in html and evaluation_galleries.FINER not in html


def test_the_comparison_shows_both_names(tmp_path, workspace):
    rng, labels = np.random.default_rng(0), ["Aves", "Animalia", "Fungi"]
    truth, hard = rng.integers(0, 3, 120), rng.normal(size=(120, 3))
    chances = [softmax(gain * np.eye(3)[truth] + hard + 0.3 * rng.normal(size=(120, 3))) for gain in (2.5, 0.3)]
    models = []
    for name, p in zip(("resnet50", "simple_cnn"), chances, strict=True):
        latency = {"p50": 9.0, "p95": 10.0, "photos_per_second": 100, "cpu": "a processor", "threads": 2}
        known = {"scores": scores.scores(p, truth, labels, resamples=20), "reliability": reliability.reliability(p, truth)}
        info = contracts.ModelInfo(labels, [0, 1, 2], contracts.ModelSpec(name, 224, (0.5,) * 3, (0.5,) * 3))
        models.append(ComparedModel(tmp_path / name, info, "", 1, place=len(models), name=name, latency=latency,
                                    answer=p.argmax(1), score=p.max(1), **known))
    found = Comparison(models, labels, truth, [f"{k}.jpg" for k in range(120)], str(tmp_path), False, [], [],
                       paired.paired(chances, truth, resamples=100), False)
    results, page = compare_page.Results(found, Gathered(models, [])), Page("Two models")
    for section in (compare_page.classes, compare_page.disagreements):
        section(page, results)
    html = page.write(tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "is Animalia · other animals" in html and html.count("Aves · birds") > 3
    assert bare(html, "Aves") == [] and found.labels == labels
