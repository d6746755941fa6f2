"""What the evaluation report shows: where photos come from, heat maps of mistakes, bursts, and a thousand classes."""

import io
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from species_wb.contracts import manifest_table
from species_wb.engine import map_check, toy
from species_wb.engine.model_file import open_model
from species_wb.engine.predict import predict_manifest
from species_wb.evaluate import evaluation_galleries, evaluation_page, evaluation_tables, mistake_maps, photo_sources, scoring
from species_wb.evaluate.evaluation import Evaluation
from species_wb.metrics import scores
from species_wb.report.page import Page

TIMES = {"p50": 1.0, "p95": 2.0, "milliseconds": [1.0, 2.0], "cpu": "x", "threads": 1, "n": 2, "batch": 1}
LATENCY = {**TIMES, "photos_per_second": 9.0}


def page_of(*sections, results: evaluation_page.Results) -> Page:
    page = Page("A report")
    for section in sections:
        section(page, results)
    return page


def texts(page: Page) -> list[str]:
    "All paragraphs of a page."
    pieces = [piece for section in page.sections for piece in section.pieces]
    return [text for piece in pieces if piece.kind == "text" for text in piece.paragraphs]


def pieces(page: Page, kind: str) -> list[SimpleNamespace]:
    return [piece for section in page.sections for piece in section.pieces if piece.kind == kind]


def coloured(folder, columns: dict[str, list], weights: str = "random numbers", features: bool = True):
    "Twelve red and twelve green photos, a toy that names one of them wrong, and the results on them."
    rows = []
    for k in range(24):
        label, colour = ("red", (200, 30, 30)) if k < 12 else ("green", (30, 200, 30) if k < 23 else (200, 30, 30))
        noisy = np.random.default_rng(k).normal(colour, 20, (48, 64, 3)).clip(0, 255)
        if k == 23:
            noisy[:24] = (30, 90, 30)  # the upper half is green, and the lower half is red
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / label / f"{k}.png")
        row = {"path": f"{label}/{k}.png", "label": label, "split": "test", "status": "ok", "sha256": f"{k:064d}"}
        row |= {"width": 64, "height": 48}
        rows.append(row | {name: values[k] for name, values in columns.items()})
    path = toy.write_toy(folder / "colours.onnx")
    model = open_model(toy.add_features(path) if features else path)
    spec = replace(model.info.spec, weights=weights)
    model = replace(model, info=replace(model.info, spec=spec))
    judged = Evaluation(folder, model, manifest_table(rows, folder), {}, {}, [], [], own=False)
    scored = scoring.score(judged, predict_manifest(model, judged.manifest), resamples=50)
    return evaluation_page.Results(judged, scored, LATENCY, seen=photo_sources.seen_before(scored, model))


# ── where the photos come from ──


SOURCES = ["github:x/imagenet-stubs"] * 8 + ["Flickr"] * 12 + [None] * 4
LICENCES = ["ImageNet terms"] * 8 + ["CC BY 2.0"] * 6 + ["CC0"] * 6 + [None] * 4


def test_the_report_names_the_sources_and_their_licences(tmp_path):
    results = coloured(tmp_path, {"source": SOURCES, "licence": LICENCES, "author": ["A. Smith"] * 24})
    page = page_of(evaluation_page.photos, results=results)
    (table,) = [t for t in pieces(page, "table") if t.columns[0] == "source"]
    assert table.columns == ["source", "licence", "photos", "training", "test"]
    assert table.rows[0] == ["Flickr", "CC BY 2.0 (6), CC0 (6)", 12, 0, 12]
    assert table.rows[1:] == [["github:x/imagenet-stubs", "ImageNet terms", 8, 0, 8], ["not known", None, 4, 0, 4]]
    nothing = page_of(evaluation_page.photos, results=coloured(tmp_path / "other", {}))
    assert not [t for t in pieces(nothing, "table") if t.columns[0] == "source"]


def test_a_photo_in_a_gallery_says_whose_it_is(tmp_path):
    results = coloured(tmp_path, {"source": SOURCES, "author": ["A. Smith"] + [None] * 23})
    names = {item["name"] for item in evaluation_tables.gallery(results.scored, [0, 10, 22])}
    assert names == {"0.png, A. Smith, github:x/imagenet-stubs", "10.png, Flickr", "22.png"}


@pytest.mark.parametrize("weights", ["ImageNet, torchvision IMAGENET1K_V1", "the published weights timm/x.ra_in1k"])
def test_photos_from_a_collection_that_the_network_was_pretrained_on_are_scored_apart(tmp_path, weights):
    results = coloured(tmp_path, {"source": SOURCES, "licence": LICENCES}, weights)
    wrong = np.flatnonzero(~results.scored.right)
    assert [SOURCES[k] for k in wrong] == [None]
    results.scored.probabilities[8] = results.scored.probabilities[8][::-1]  # one mistake of a photo from elsewhere
    results.seen = photo_sources.seen_before(results.scored, results.judged.model)
    (said,) = [text for text in texts(page_of(evaluation_page.overall, results=results)) if "ImageNet" in text]
    assert "8 of the 24 test photos come from ImageNet" in said and "may have seen" in said
    assert re.search(r"1\.00 \(0\.\d\d to 1\.00\) .*8 photos", said)
    assert re.search(r"0\.92 \(0\.\d\d to [01]\.\d\d\) .*12 photos", said)
    assert "source of 4 test photos is not known" in said


UNSEEN = [("random numbers", SOURCES), ("ImageNet, torchvision", ["Flickr"] * 24)]


@pytest.mark.parametrize(("weights", "sources"), UNSEEN)
def test_nothing_is_said_of_pretraining_where_no_photo_can_have_been_seen(tmp_path, weights, sources):
    results = coloured(tmp_path, {"source": sources}, weights)
    assert not any("ImageNet" in text for text in texts(page_of(evaluation_page.overall, results=results)))


# ── heat maps of mistakes ──


def test_a_mistake_is_shown_with_what_spoke_for_the_answer_and_for_the_truth(tmp_path):
    results = coloured(tmp_path, {})
    results.maps = mistake_maps.checked(results.judged.model, results.scored)
    (gallery,) = pieces(page_of(evaluation_galleries.surest_mistakes, results=results), "gallery")
    assert results.maps["passed"] and gallery.caption.startswith("The maps passed a test on 24 test photos (class activation): ")
    (item,) = gallery.items
    assert item.lines[1] == "is green" and item.lines[0].startswith("✗ red")
    assert "what spoke for red" in item.alt and "what spoke for green" in item.alt
    strip = np.asarray(Image.open(io.BytesIO(item.image.data)).convert("RGB")).astype(float)
    photo, *maps = np.array_split(strip[:, : strip.shape[1] // 3 * 3], 3, axis=1)
    upper, lower = slice(4, 20), slice(28, 44)  # the upper half of this photo is green, and the lower half is red
    changed = [np.abs(drawn - photo)[:, 8:-8] for drawn in maps]
    assert changed[0][lower].mean() > 5 * changed[0][upper].mean(), "the answer was red"
    assert changed[1][upper].mean() > 5 * changed[1][lower].mean(), "the truth is green"


def test_maps_that_show_what_does_not_count_are_left_out_and_the_report_says_why(tmp_path, monkeypatch):
    results, true_map = coloured(tmp_path, {}), map_check.heat_map
    turned = lambda *asked: replace(true_map(*asked), heat=1 - true_map(*asked).heat)  # noqa: E731  # what counts least is called hot
    monkeypatch.setattr(map_check, "heat_map", turned)
    results.maps = mistake_maps.checked(results.judged.model, results.scored)
    (gallery,) = pieces(page_of(evaluation_galleries.surest_mistakes, results=results), "gallery")
    assert not results.maps["passed"] and gallery.caption.startswith("Maps of where the network looked are left out: they did not pass a test")
    assert "what spoke for" not in gallery.items[0].alt and not gallery.wide


def test_maps_that_cost_many_runs_are_made_for_three_mistakes_only(tmp_path, monkeypatch):
    results = coloured(tmp_path, {}, features=False)  # only occlusion can say where this network looked
    asked = []
    heat_map = mistake_maps.maps.heat_map
    monkeypatch.setattr(mistake_maps.maps, "heat_map", lambda *words: (asked.append(words), heat_map(*words))[1])
    shown = mistake_maps.mistakes(results.judged.model, results.scored, [23, 0, 1, 2, 3])
    wide = [Image.open(io.BytesIO(item["photo"])).width > 100 for item in shown]
    assert wide == [True, True, True, False, False] and len(asked) == 6


# ── one label for a burst ──


def in_bursts(n: int = 60, size: int = 4, spread: float = 1.6, seed: int = 0) -> scoring.Scored:
    "Bursts of photos of one class each; every photo has noise of its own."
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 3, n), size)
    logits = rng.normal(0, spread, (n * size, 3)) + 1.5 * np.eye(3)[truth]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = [
        {"path": f"{k}.jpg", "truth": "abc"[t], "group": f"g{k // size}", "site": f"s{k % 2 * 0}", "status": "ok",
         "taken_at": f"2026-05-{1 + k // size // 24:02}T{k // size % 24:02}:10:{10 * (k % size):02}"}
        for k, t in enumerate(truth)
    ]  # fmt: skip
    return scoring.Scored(rows, list("abc"), truth, logits, chances, None, "/", Counter())


def test_a_burst_gets_the_label_with_the_highest_mean_probability():
    from species_wb.evaluate import bursts

    scored = in_bursts()
    found = bursts.gain(scored, resamples=400)
    mean = scored.probabilities.reshape(60, 4, 3).mean(1).argmax(1).repeat(4)
    assert (found["n"], found["bursts"], found["mixed"]) == (240, 60, 0)
    assert found["own"]["value"] == pytest.approx(scored.right.mean())
    assert found["pooled"]["value"] == pytest.approx((mean == scored.truth).mean())
    more = found["difference"]
    assert more["value"] == pytest.approx(found["pooled"]["value"] - found["own"]["value"])
    assert 0 < more["low"] < more["value"] < more["high"] and more["established"]
    results = evaluation_page.Results(None, scored, LATENCY, bursts=found)
    page = page_of(evaluation_page.burst_labels, results=results)
    said = " ".join(texts(page))
    assert "240 test photos" in said and "60 bursts" in said and "is right more often" in said
    (table,) = pieces(page, "table")
    shares = [row[1].split()[0] for row in table.rows]
    assert shares[:2] == [f"{found[which]['value']:.2f}" for which in ("pooled", "own")]
    assert shares[2] == f"{more['value']:+.3f}" and "60 bursts" in table.caption


def test_where_bursts_gain_nothing_the_report_does_not_say_that_they_do():
    from species_wb.evaluate import bursts

    scored = in_bursts(n=12, size=2, spread=0.9, seed=3)
    found = bursts.gain(scored, resamples=400)
    assert not found["difference"]["established"]
    assert "cannot show a difference" in " ".join(bursts.sentences(found))


def test_a_burst_needs_a_site_and_times_and_never_a_class_folder():
    from species_wb.evaluate import bursts

    scored = in_bursts()
    without = scored.rows[0] | {"path": "owl/0.jpg"}
    for lost in ({"site": None}, {"taken_at": None}, {"taken_at": "2026-05-01"}, {"status": "cut-short"}):
        assert bursts.bursts_of([row | lost for row in scored.rows]) == [], lost
    assert bursts.bursts_of([without, *scored.rows[1:4]]) == [[0, 1, 2, 3]]
    scored.rows = [row | {"site": None} for row in scored.rows]
    assert bursts.gain(scored) is None
    results = evaluation_page.Results(None, scored, LATENCY)
    assert page_of(evaluation_page.burst_labels, results=results).sections == []


def test_the_table_of_predictions_holds_the_label_of_a_burst_beside_the_photos_own(tmp_path):
    from species_wb.evaluate import bursts

    at = [f"2026-05-04T0{7 + k // 20}:00:{k % 20:02}" for k in range(24)]  # two bursts, from photo 0 and 20
    results = coloured(tmp_path, {"site": ["pond"] * 24, "taken_at": at})
    model, table = results.judged.model, predict_manifest(results.judged.model, results.judged.manifest)
    found = bursts.with_burst_labels(model, table)
    assert found.select(table.schema.names).equals(table) and found.schema.metadata == table.schema.metadata
    last = found.to_pylist()[-1]  # this photo is named red, and the other three photos of its burst are named green
    assert (last["label"], last["label_burst"], last["burst"]) == ("red", "green", "green/20.png")
    assert 0.5 < last["score_burst"] < 1 and found["burst"].to_pylist()[:20] == ["red/0.png"] * 20
    alone = predict_manifest(model, coloured(tmp_path / "other", {}).judged.manifest)
    assert bursts.with_burst_labels(model, alone) is alone


# ── a thousand classes ──


@pytest.fixture(scope="module")
def thousand() -> evaluation_page.Results:
    "A thousand species with a long tail, 100 of them without test photos; numbers only."
    rng = np.random.default_rng(0)
    labels = [f"Genus{c // 8:03} species{c:04}" for c in range(1000)]
    share = 1 / np.arange(1, 901) ** 0.8
    truth = np.sort(np.concatenate([np.arange(900), rng.choice(900, 5100, p=share / share.sum())]))
    logits = rng.normal(0, 1, (6000, 1000)) + 5 * np.eye(1000)[truth]
    logits[:, :40] += 4.2 * np.eye(40)[np.arange(40) ^ 1][truth.clip(0, 39)] * (truth < 40)[:, None]  # pairs of species
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = [{"path": f"{k}.jpg", "truth": labels[t], "group": None, "status": "ok"} for k, t in enumerate(truth)]
    embedding = rng.normal(size=(6000, 16)).astype(np.float32)
    scored = scoring.Scored(rows, labels, truth, logits, chances, embedding, "/nowhere", Counter())
    scored.scores = scores.scores(chances, truth, labels, resamples=100)
    return evaluation_page.Results(SimpleNamespace(model=None), scored, LATENCY)


@pytest.mark.slow
def test_of_a_thousand_classes_the_weakest_that_have_enough_photos_come_first(thousand):
    page = page_of(evaluation_page.classes, results=thousand)
    (table,), (figure,) = pieces(page, "table"), pieces(page, "figure")
    n, f1 = [row[1] for row in table.rows], [float(row[4].split()[0]) for row in table.rows]
    enough = sum(k >= 10 for k in n)
    assert enough > 40 and min(n[:enough]) >= 10 and max(n[enough:]) < 10 and min(n) >= 1
    assert f1[:enough] == sorted(f1[:enough])
    assert len(table.rows) == 900 and any("100 of the 1,000 classes have no test photos" in t for t in texts(page))
    assert "fewer than 10" in " ".join(texts(page)) + figure.caption


@pytest.mark.slow
def test_of_a_thousand_classes_the_confused_ones_stand_side_by_side_in_one_matrix(thousand):
    from species_wb.evaluate import confusion_plot

    page = page_of(evaluation_page.confusions, results=thousand)
    (table,) = pieces(page, "table")
    assert len(pieces(page, "figure")) == 1 and len(table.rows) == 25
    counts = thousand.scored.scores["confusion"]
    figure = confusion_plot.confusion(counts, thousand.scored.labels)
    names = [t.get_text().rsplit(" (", 1)[0].replace("\n", " ") for t in figure.axes[0].get_yticklabels()]
    place = {name: k for k, name in enumerate(names)}
    pairs = [row[:2] for row in table.rows if row[0] in place and row[1] in place]
    assert len(pairs) > 10 and np.mean([abs(place[a] - place[b]) == 1 for a, b in pairs]) > 0.8


@pytest.mark.slow
def test_the_galleries_and_the_page_of_a_thousand_classes_stay_small(thousand, tmp_path, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8))
    file = io.BytesIO()
    noise.save(file, "JPEG", quality=80)
    monkeypatch.setattr(evaluation_tables, "thumbnail", lambda *words: file.getvalue())
    chosen = evaluation_tables.typical(thousand.scored)
    most = Counter(np.concatenate([thousand.scored.truth[~thousand.scored.right]]).tolist())
    assert 0 < len(chosen) <= 24 and all(most[thousand.scored.truth[k]] for k in chosen)  # of classes that are confused
    sections = (evaluation_page.overall, evaluation_page.classes, evaluation_page.confusions)
    sections += (evaluation_page.calibration, evaluation_galleries.least_sure, evaluation_galleries.typical)
    thousand.judged.model = SimpleNamespace(members=(), info=SimpleNamespace(temperature=1.0))
    path = page_of(*sections, results=thousand).write(tmp_path / "report.html")
    assert path.stat().st_size < 3_000_000
