"What the evaluation report says: no share is rounded to all or nothing, no sentence says more than the photos show, and looks at the test photos are counted."

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from PIL import Image

from species_wb import core, runs
from species_wb.apps.cells import STATIC
from species_wb.contracts import ModelInfo, ModelSpec, manifest_table
from species_wb.curate import confusions
from species_wb.engine import predict, toy
from species_wb.evaluate import compare, compare_runs, ensemble_gain, evaluation, evaluation_galleries, evaluation_page, evaluation_tables, evaluation_text, looks, model_card, photo_sources, plots, robustness_text, scoring, subgroups, trust_text
from species_wb.metrics import intervals, reliability
from species_wb.predictions import predictions_table
from species_wb.report.page import Page

ROOT = Path(__file__).resolve().parent.parent.parent


def judged(photos, labels=("Aves", "Fungi"), temperature=1.0, columns=None, **known):
    "An evaluation of photos given as (truth, logits), with a model that has these labels."
    info = ModelInfo(list(labels), list(range(len(labels))), ModelSpec("tiny", 32, (0.5,) * 3, (0.5,) * 3), temperature, **known)
    rows = [{"path": f"{n}.jpg", "truth": truth, "split": "test", "status": "ok", "sha256": f"{n:064d}", "group": None, "logits": z, "embedding": z} | (columns(n) if columns else {})
            for n, (truth, z) in enumerate(photos)]  # fmt: skip
    manifest = manifest_table([{"label": row["truth"], **{k: row[k] for k in ("path", "split", "status", "sha256", "group", *(columns(0) if columns else ()))}} for row in rows], "/photos")
    about = evaluation.Evaluation(Path("/nowhere/run"), SimpleNamespace(info=info, sha256="0" * 64, path=Path("/nowhere/model.onnx"), members=()), manifest, {}, {}, [], [], own=False)
    return about, scoring.score(about, predictions_table(rows, "/photos", info.labels), resamples=200)


# 0.996 is not 1.00


@pytest.mark.parametrize("share, two, whole", [
    (0.5, "0.50", "50 %"), (0.996, "0.996", "99.6 %"), (0.004, "0.004", "0.4 %"), (0.99996, ">0.999", ">99.9 %"), (1e-9, "<0.001", "<0.1 %"), (1, "1.00", "100 %"), (0.0, "0.00", "0 %"), (0.947, "0.95", "95 %"),
])  # fmt: skip
def test_a_share_is_one_or_nought_only_where_it_is_exactly_so(share, two, whole):
    assert (core.decimals(share), core.percent(share).replace("\u00a0", " ")) == (two, whole)


def test_a_score_of_0_996_is_written_as_0_996_everywhere():
    about, scored = judged([("Aves", [5.52, 0])] * 2 + [("Fungi", [5.52, 0])])
    scored.root = "/nowhere"
    assert [photo["lines"][0] for photo in evaluation_tables.gallery(scored, [0, 2])] == ["✓ Aves 0.996", "✗ Aves 0.996"]
    assert "(99.6\u00a0%)" in confusions._right_words(249, 250)
    curve = reliability.risk_coverage(np.array([[0.9, 0.1]] * 2999 + [[0.8, 0.2]]), [0] * 2999 + [1])
    assert "0.9997 right" in plots.risk_coverage(curve).get_suptitle().replace("\n", " ")
    scored.scores["accuracy"] = {"value": 0.9997, "low": 0.9992, "high": 0.99996}
    value = next(row for row in evaluation_tables.overall(scored) if row[0] == "accuracy")
    assert value == ["accuracy", "0.9997", "0.999", ">0.9999"]
    assert intervals.rounded({"value": 0.9999999, "low": 0.9996, "high": 1.0})[0] == ">0.999999"


@pytest.mark.parametrize("file", ["words.js", "serve/page.js"])
def test_the_camera_the_explorer_and_the_service_round_as_the_reports_do(browser, file):
    script = (STATIC / file).read_text(encoding="utf-8")
    tab = browser.new_context().new_page()
    own = script[script.index("const percent") : script.index("const size")] if "serve" in file else script
    shares = [0, 1e-9, 0.0004, 0.004, 0.02, 0.5, 0.947, 0.9944, 0.996, 0.99949, 0.99996, 1]
    assert tab.evaluate(f"(shares) => {{ {own}\n return shares.map(percent); }}", shares) == [core.percent(share) for share in shares]
    tab.context.close()


# Calibration: a figure that holds enough, one plain verdict


def calibrated(n: int, cooler: float, temperature: float, seed: int = 0):
    "An evaluation whose network is too sure by the factor `cooler`, calibrated by `temperature`."
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3)) * 2
    truth = [rng.choice(3, p=p) for p in np.exp(z) / np.exp(z).sum(1, keepdims=True)]
    return judged([("abc"[t], (cooler * row).tolist()) for t, row in zip(truth, z, strict=True)], labels="abc", temperature=temperature)


@pytest.mark.parametrize("n, cooler, temperature, verdict", [
    (900, 3, 3, "The scores were adjusted once (calibration), which made them better."), (900, 1, 3, "made them worse on these photos."),
    (60, 1.03, 1.03, "60 photos are too few to show whether that helped."),
])  # fmt: skip
def test_the_report_says_whether_calibration_helped_only_where_the_photos_show_it(n, cooler, temperature, verdict):
    about, scored = calibrated(n, cooler, temperature)
    said = " ".join(trust_text.calibration_sentences(about, scored, scoring.calibration(scored)))
    assert sum(said.count(other) for other in ("made them better.", "made them worse on these photos.", "too few to show whether")) == 1 and verdict in said
    assert "the log loss changes by " in said and said.count(" to ") >= 4  # each number with its interval
    assert "15 bins of equal width" in said and "no closer to" not in said and "further from" not in said


def test_a_network_whose_scores_were_left_as_they_are_is_not_compared_with_itself():
    about, scored = calibrated(300, 1, 1)
    found = scoring.calibration(scored)
    assert "adjusted" not in " ".join(trust_text.calibration_sentences(about, scored, found))


def test_the_calibration_figure_shows_bins_with_their_intervals_and_no_line_through_them():
    _, scored = calibrated(290, 3, 3)
    found = scoring.calibration(scored)
    figure = plots.reliability({"before": found["before"], "after": found["after"]})
    assert len(figure.axes) == 2 and all("9 groups of 32 to 34" in axes.get_title() for axes in figure.axes)
    for axes, curve in zip(figure.axes, (found["before"], found["after"]), strict=True):
        (points, _, (ends,)) = axes.containers[0]
        assert points.get_linestyle() == "None" and len(points.get_xdata()) == len(curve["bins"]) == 9
        assert [tuple(end[:, 1]) for end in ends.get_segments()] == [pytest.approx((b["accuracy_low"], b["accuracy_high"])) for b in curve["bins"]]


# No sentence about what nobody named


def test_where_no_threshold_is_named_no_sentence_speaks_of_one():
    about, scored = judged([("Aves", [6, 0])] * 60 + [("Fungi", [0, 6])] * 60)
    results, page = evaluation_page.Results(about, scored, {}), Page("Colours")
    scored.root = "/nowhere"
    for section in (evaluation_page.unanswered, evaluation_galleries.least_sure, evaluation_galleries.surest_mistakes):
        section(page, results)
    said = json.dumps([[vars(piece) for piece in section.pieces if piece.kind == "text"] for section in page.sections])
    assert "little to gain" in said and "threshold" not in said and "score below" not in said
    found = {"clean_score": 0.9, "clean_accuracy": {"value": 0.9, "low": 0.85, "high": 0.95}, "mean_score": 0.8, "mean_accuracy": {"value": 0.6, "low": 0.5, "high": 0.7}}
    assert "too sure" in robustness_text._knows(found) and "threshold" not in robustness_text._knows(found)


def test_a_threshold_that_was_chosen_on_the_test_photos_says_so():
    about, scored = judged([("Aves", [6, 0])] * 80 + [("Fungi", [0.5, 0])] * 20)
    page = Page("Colours")
    evaluation_page.unanswered(page, evaluation_page.Results(about, scored, {}))
    said = " ".join(page.sections[-1].pieces[0].paragraphs)
    assert "with a score below" in said and "because the limit was chosen on these" in said


# A tie is not "most often"


@pytest.mark.parametrize("answers, end", [
    ("bb", "The other 2 are taken for b."), ("b", "The other one is taken for b."), ("bbc", "It is most often taken for b (2 photos)."),
    ("bbcc", "It is taken for b as often as for c (2 photos each)."), ("bcd", ""),
])  # fmt: skip
def test_a_class_is_most_often_taken_for_another_only_where_no_other_is_as_frequent(answers, end):
    logits = {label: [9.0 * (label == other) for other in "abcd"] for label in "abcd"}
    photos = [("a", logits["a"])] * 3 + [("a", logits[answer]) for answer in answers] + [(other, logits[other]) for other in "bcd" for _ in range(9)]
    said = evaluation_text.weakest(judged(photos, labels="abcd")[1])
    assert said.startswith(("The weakest class is a: 3 of its ", "Lowest in this test: a. 3 of its "))
    assert said.endswith(end) and ("most often" in said) == ("most often" in end) and said.count("taken for") == bool(end)


def test_classes_that_are_equally_weak_are_all_named():
    right = {"a": [9, 0, 0], "b": [0, 9, 0], "c": [0, 0, 9]}
    photos = [(label, right[label]) for label in "abc" for _ in range(8)] + [("a", right["c"]), ("b", right["c"]), ("c", right["c"])]
    assert evaluation_text.weakest(judged(photos, labels="abc")[1]).startswith("Lowest in this test: a and b. 8 of the 9 photos of each are found.")


def test_the_weakest_class_is_not_one_that_had_bad_luck_with_one_photo():
    right = [[9.0 * (k == other) for other in range(3)] for k in range(3)]
    photos = [("a", right[0])] * 30 + [("b", right[1])] * 12 + [("b", right[0])] * 18 + [("c", right[0])]  # c: none of one; b: 12 of 30
    said = evaluation_text.weakest(judged(photos, labels="abc")[1])
    assert said.startswith("The weakest class is b: 12 of its 30 photos") and "chance" not in said
    photos = [("a", right[0])] * 9 + [("a", right[1])] + [("b", right[1])] * 8 + [("b", right[0])] * 2
    assert "This may be chance." in evaluation_text.weakest(judged(photos, labels="abc")[1])


@pytest.mark.parametrize("means, start", [
    ((0.5, 0.5, 0.7, 0.8, 0.9), "The hardest are blur (out of focus) and dark"), ((0.4, 0.5, 0.7, 0.9, 0.9), "The hardest is blur (out of focus): 0.40"),
])  # fmt: skip
def test_corruptions_that_do_equal_harm_are_both_the_hardest(means, start):
    names, share = list(robustness_text.MEANINGS), lambda value: {"value": value, "low": value - 0.1, "high": value + 0.1}
    found = {"means": {name: share(mean) for name, mean in zip(names, means, strict=True)}}
    found["corruptions"] = {name: [{"accuracy": share(mean)}] * 5 for name, mean in zip(names, means, strict=True)}
    said = robustness_text._extremes(found)
    assert said.startswith(start) and ("does the least harm" in said) == (means[-1] != means[-2])


# Looks at the test photos are counted where the model is


def survey(folder, colours=(("red", (200, 30, 30)), ("green", (30, 200, 30))), each=6):
    "A folder of labelled photos, and the toy model that tells the colours apart."
    for k, (label, colour) in enumerate(colours * each):
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        noisy = np.random.default_rng(k).normal(colour, 20, (48, 64, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "photos" / label / f"{k}.png")
    (folder / "models").mkdir(exist_ok=True)
    return toy.write_toy(folder / "models" / "colours.onnx"), folder / "photos"


def looked(model, photos):
    "Evaluate as the notebook does, and return what its report says of earlier looks."
    about = evaluation.begin(model=model, photos=photos)
    scored = scoring.score(about, predict.predict_manifest(about.model, evaluation.to_predict(about.manifest)), resamples=20)
    scoring.record(about, scored, {}, "right")
    runs.set_state(about.run, "finished")
    return looks.sentence(looks.known(about.model.path, about.model.sha256, about.run), looks.fingerprint([row["sha256"] for row in scored.rows]), len(scored.rows))


@pytest.mark.usefixtures("workspace")
def test_scorings_in_other_run_folders_are_counted_where_the_model_is(tmp_path):
    model, photos = survey(tmp_path)
    assert looked(model, photos).startswith("Once so far on these 12 photos")
    assert looked(model, photos).startswith("The model was scored 2 times on these 12 photos")
    log = (tmp_path / "models" / "scorings.jsonl").read_text().splitlines()
    assert len(log) == 2 and {json.loads(line)["n"] for line in log} == {12} and len({json.loads(line)["run"] for line in log}) == 2
    (photos / "red" / "0.png").unlink()
    assert looked(model, photos) == "Once so far on these 11 photos (and twice on other photos)."
    other = toy.write_toy(tmp_path / "models" / "other.onnx", side=32)
    assert looked(other, photos).startswith("Once so far")  # another model in the same folder


@pytest.mark.usefixtures("workspace")
def test_a_comparison_is_a_look_at_the_test_photos(tmp_path):
    model, photos = survey(tmp_path)
    looked(model, photos)
    gathered = compare_runs.gather_runs(f"{model},{toy.write_toy(tmp_path / 'models' / 'other.onnx', side=32)}", photos)
    found = compare.compare(gathered, resamples=50)
    looks.log_comparison(found.models, compare_runs.common(found.models), tmp_path / "comparison")
    assert "3 times on these 12 photos" in looked(model, photos)
    assert "2 times on these 12 photos" in looked(tmp_path / "models" / "other.onnx", photos)
    cells = nbformat.read(ROOT / "nbs" / "compare.ipynb", 4).cells
    assert any("looks.log_comparison(found.models, compare_runs.common(found.models), folder)" in cell.source for cell in cells)


@pytest.mark.usefixtures("workspace")
def test_a_model_in_a_folder_that_cannot_be_written_is_scored_all_the_same(tmp_path, monkeypatch):
    model, photos = survey(tmp_path)
    monkeypatch.setattr(looks, "AppendOnlyTable", lambda *_: (_ for _ in ()).throw(PermissionError("read only")))
    assert looked(model, photos).startswith("Once so far")  # known from the run itself
    assert not (tmp_path / "models" / "scorings.jsonl").exists()


# Intended use and limits: each sentence from data


def at_sites(test: str, train: str = "", right=lambda n: True, taken=None):
    "An evaluation whose test photos come from these sites (a letter each; - is unknown); the training photos, too."
    photos = [("Aves", [3, 0] if right(n) else [0, 3]) for n in range(len(test))]
    known = lambda site: None if site == "-" else site  # noqa: E731
    about, scored = judged(photos, columns=lambda n: {"site": known(test[n]), "taken_at": taken and taken[n % len(taken)]})
    trained = [{"path": f"t{n}.jpg", "label": "Aves", "split": "train", "status": "ok", "sha256": f"{n + 10**6:064d}", "site": known(site)} for n, site in enumerate(train)]
    about.manifest = manifest_table([*({**row, "label": row["truth"]} for row in scored.rows), *trained], "/photos")
    return about, scored


def test_the_card_says_what_another_site_does_to_the_score():
    said = model_card.card(*at_sites("--------"))["Another site"]
    assert said.startswith("Not tested: the test photos do not say where they were taken.")
    said = model_card.card(*at_sites("aabb", train="ab"))["Another site"]
    assert said.startswith("Not tested: all 4 test photos come from sites that it was trained at, too (a and b).")
    said = model_card.card(*at_sites("a" * 20 + "c" * 20, train="ab", right=lambda n: n < 20 or n % 2))["Another site"]
    assert said.startswith("At 1 site that it was not trained at, 0.50 (0.") and "of 20 photos are named right" in said and "at the others, 1.00 (0.84 to 1.00) of 20" in said
    about, scored = at_sites("aabb", train="ab")
    about.own = True
    about.manifest = about.manifest.slice(0, 4)
    assert model_card.card(about, scored)["Another site"] == "It was tested at 2 sites (a and b). The model file does not say at which sites it was trained."


def test_the_card_names_what_was_not_tested():
    photos = [("Aves", [3, 0, 0])] * 3
    about, scored = judged(photos, labels=("Aves", "Fungi", "Insecta"))
    card = model_card.card(about, scored)
    assert "one of 3 classes (Aves · birds, Fungi and Insecta · insects)" in card["What it does"] and "also where a photo shows none of them" in card["What it does"]
    assert "No test photo shows Fungi and Insecta: how it does on them is not known." in card["Tested on"]
    assert card["Worse photos"].startswith("Not tested")
    assert "does not say which photos it was trained with" in card["Made with"]


def test_the_card_gives_numbers_with_their_intervals_and_the_licence():
    about, scored = at_sites("aabb", train="ab", taken=["2026-05-01T07:00:00", "2026-06-09T07:00:00"])
    about.model.info.provenance.update({"training_photos": ["7" * 16, "8" * 16], "simulated": True})
    worse = {"n": 4, "clean_accuracy": {"value": 1.0, "low": 0.6, "high": 1.0}, "mean_accuracy": {"value": 0.7, "low": 0.5, "high": 0.8}}
    card = model_card.card(about, scored, worse)
    assert card["Made with"].startswith("2 different photos, simulated ones.")
    assert "4 photos of 1 class, taken from 2026-05-01 to 2026-06-09" in card["Tested on"]
    assert card["Worse photos"] == "Made worse by a program, 0.70 (0.50 to 0.80) of 4 test photos are named right; as they are, 1.00 (0.60 to 1.00)."
    assert "licence" in card["Licence"]


def test_the_report_says_first_how_good_then_where_it_fails_then_on_what_to_rely_then_how_it_was_made():
    (cell,) = [cell.source for cell in nbformat.read(ROOT / "nbs" / "evaluate.ipynb", 4).cells if "page_holds = [" in cell.source]
    at = [cell.index(f".{name},") for name in ("overall", "classes", "confusions", "surest_mistakes", "worse_photos", "trust", "limits", "photos", "training", "calibration", "provenance")]
    assert at == sorted(at)


def test_the_interval_beside_a_threshold_knows_that_photos_of_a_burst_belong_together():
    bursts = [[("Aves" if k else "Fungi", [4, 0])] * 10 for k in range(20)] + [[("Fungi", [0.2, 0])] * 10] * 4
    photos = [photo for burst in bursts for photo in burst]
    points = [trust_text.answered(judged(photos, columns=lambda n, size=size: {"group": f"g{n // size}"})[1])[2] for size in (1, 10)]
    alone, together = (point["high"] - point["low"] for point in points)
    assert points[0]["n"] == points[1]["n"] and together > 1.5 * alone


def test_the_gain_of_a_mix_has_its_interval():
    share = {"value": 0.9, "low": 0.8, "high": 0.95}
    row = {"name": "b", "scores": {"accuracy": share}, "ms": [5.0] * 9, "difference": {"accuracy": {"value": 0.012, "low": 0.003, "high": 0.021, "established": True}}}
    said = ensemble_gain.gain_sentence([row, row], 293)
    assert "+1.2 (+0.3 to +2.1) points of accuracy" in said


# What two readers who know no machine learning asked for


def texts(section, about, scored, **more):
    "The title, the paragraphs, the tables and the galleries of a section."
    page = Page("Colours")
    section(page, evaluation_page.Results(about, scored, {}, **more))
    pieces = page.sections[-1].pieces
    kind = lambda name: [piece for piece in pieces if piece.kind == name]  # noqa: E731
    return page.sections[-1].heading.title, " ".join(p for piece in kind("text") for p in piece.paragraphs), kind("table"), kind("gallery")


def confused(*counts, labels="abc", gain=9.0):
    "An evaluation with this confusion matrix."
    logits = [[gain * (k == other) for other in range(len(labels))] for k in range(len(labels))]
    return judged([(labels[t], logits[a]) for t, row in enumerate(counts) for a, n in enumerate(row) for _ in range(n)], labels=labels)


def test_the_opening_says_which_class_is_found_least_often_and_which_answer_is_least_often_right():
    about, scored = confused([26, 0, 4], [0, 30, 0], [0, 3, 27])
    said = " ".join(evaluation_text.headline(about, scored)[1])
    assert "a is found least often: 26 of its 30 photos, 0.87 (0." in said
    assert "When the model says c, 27 of 31 answers are right, 0.87 (0." in said
    assert said.count("Both differences from the other classes may be chance.") == 1
    assert "F1" not in said and "taken for" not in said
    assert evaluation_text.weakest(scored) not in said and evaluation_text.weakest(scored) in texts(evaluation_page.classes, about, scored)[1]


@pytest.mark.parametrize("counts, said", [
    (([100, 0, 0], [0, 100, 0], [0, 60, 40]), "c is found least often: 40 of its 100 photos, 0.40 (0."),
    (([9, 0, 1], [1, 9, 0], [0, 0, 10]), "a and b are found least often: 9 of the 10 photos of each."),
    (([0, 2, 0], [0, 30, 0], [0, 0, 30]), "a is found least often: none of its 2 photos, 0.00 (0.00 to 0."),
])  # fmt: skip
def test_which_class_is_found_least_often(counts, said):
    _, scored = confused(*counts)
    found = evaluation_text.least_found(scored)
    assert found.startswith(said)


def test_where_the_ranges_of_the_classes_lie_apart_the_worst_is_named_without_a_reservation():
    _, scored = confused([100, 0, 0], [0, 100, 0], [0, 60, 40])
    both = f"{evaluation_text.least_found(scored)} {evaluation_text.least_believed(scored)}"
    assert "When the model says b, 100 of 160 answers are right, 0.6" in both and "chance" not in evaluation_text.worst_words(scored)
    assert evaluation_text.worst_words(scored) == both


@pytest.mark.parametrize("counts, labels", [(([30, 0], [0, 30]), "ab"), (([30, 0], [0, 0]), "ab"), (([5],), "a")])
def test_without_a_mistake_or_with_one_class_no_class_is_the_worst(counts, labels):
    assert evaluation_text.worst_words(confused(*counts, labels=labels)[1]) == ""


def test_answers_that_are_right_equally_seldom_are_all_named():
    said = evaluation_text.least_believed(confused([9, 1, 0], [1, 9, 0], [0, 0, 10])[1])
    assert said.startswith("When the model says a or b, 9 of 10 answers each are right.")


def test_a_weakest_class_of_few_photos_may_be_no_weaker_than_the_others():
    said = evaluation_text.weakest(confused([9, 1, 0], [0, 10, 0], [0, 0, 10])[1])
    assert said.startswith("Lowest in this test: a. 9 of its 10 photos are found, 0.90 (0.") and "This may be chance." in said and "weakest" not in said


def test_the_second_line_says_in_plain_words_how_the_model_was_made():
    about, _ = confused([3, 0], [0, 3], labels="ab")
    about.training["method"] = "probe"
    about.training["weights"] = {"used": "imagenet"}
    assert "a published network that had learned from other photos. Its last layer was then taught these 2 classes." in evaluation_text.subtitle(about)
    about.training["weights"] = {"used": "none"}
    assert "published" not in evaluation_text.subtitle(about) and "random numbers. Its last layer was then taught" in evaluation_text.subtitle(about)


# What to check by hand has one owner


def unsure(n=240, wrong=16, bad=14):
    "Answers of which the lowest fifth holds nearly all mistakes."
    low = [("a", [0.3 + 0.01 * k, 0, -9]) for k in range(44 - bad)] + [("b", [0.2 + 0.01 * k, 0, -9]) for k in range(bad)]
    high = [("a", [6 + 0.01 * k, 0, -9]) for k in range(n - 44 - wrong + bad)] + [("b", [6.0, 0, -9])] * (wrong - bad)
    return judged(low + high, labels="abc")


def test_the_section_says_which_answers_to_check_and_how_many_mistakes_are_among_them():
    about, scored = unsure()
    title, said, _, _ = texts(evaluation_page.unanswered, about, scored)
    point = trust_text.answered(scored)[2]
    below, wrong = len(scored.rows) - point["n"], int((~scored.right & (scored.probabilities.max(1) < point["threshold"])).sum())
    assert title == "If you check the unsure answers yourself"
    assert f"Check the answers with a score below {point['limit']}: {below} of the 240 photos, and {wrong} of the 16 wrong answers are among them." in said
    assert f"Of the other {point['n']}, {round(point['accuracy'] * point['n'])} are right, 0.9" in said and "); expect a little less" in said
    assert "expect a little less on new photos, because the limit was chosen on these" in said


def test_the_galleries_only_describe_what_they_show():
    about, scored = unsure()
    for section in (evaluation_galleries.surest_mistakes, evaluation_galleries.least_sure):
        _, said, _, _ = texts(section, about, scored)
        assert "by hand" not in said and "first:" not in said and "Look at" not in said


@pytest.mark.parametrize("scores", [[0.9649, 0.9666, 0.99], [0.9661, 0.9666, 0.99], [0.9666 - 1e-9, 0.9666, 0.99], [0.9949, 0.9960, 0.99999], [0.6, 0.7, 0.8]])
def test_a_score_below_the_limit_never_prints_like_the_limit(scores):
    lowest, limit, highest = scores
    printed = trust_text.limit_between(lowest, limit)
    shown = float(printed)
    assert lowest < shown <= limit
    below, at, above = (evaluation_tables.score_words(score, shown) for score in (lowest, limit, highest))
    number = lambda text: float(text.strip("<>"))  # noqa: E731
    assert number(below) < shown <= number(at) <= number(above)


def test_a_photo_in_a_gallery_prints_its_score_on_the_right_side_of_the_limit():
    about, scored = unsure()
    scored.root = "/nowhere"
    scored.probabilities[0] = [0.9649, 0.0351, 0]
    assert next(evaluation_tables.gallery(scored, [0]))["lines"][0] == "✓ a 0.96"
    scored.probabilities[0] = [0.9661, 0.0339, 0]
    assert next(evaluation_tables.gallery(scored, [0], limit=0.97))["lines"][0] == "✓ a 0.966"
    assert next(evaluation_tables.gallery(scored, [0]))["lines"][0] == "✓ a 0.97"


# Few mistakes are all shown, and only once


def test_at_most_sixteen_mistakes_are_all_shown_and_not_once_more_among_the_least_sure():
    about, scored = unsure()
    title, said, _, (gallery,) = texts(evaluation_galleries.surest_mistakes, about, scored)
    assert title == "All 16 mistakes, the surest first" and len(gallery.items) == 16
    assert "If these test photos are yours, see whether the person who named them was right" in said and "often the label" not in said
    assert "Each answer has a score, from 0 to 1" in said and "✗ stands before the answer" in said and gallery.caption.startswith("Maps of where the network looked are left out")
    title, said, _, (gallery,) = texts(evaluation_galleries.least_sure, about, scored)
    assert title == "Right, but only just" and "The 12 right answers with the lowest scores." in said
    assert len(gallery.items) == 12 and all(item.lines[0].startswith("✓") for item in gallery.items) and "The mistakes are shown above" in said


@pytest.mark.parametrize("wrong, title, shown", [(0, "The surest mistakes", 0), (1, "The only mistake", 1), (2, "Both mistakes, the surer one first", 2), (17, "The surest mistakes", 12)])
def test_the_gallery_of_mistakes_is_named_after_what_it_shows(wrong, title, shown):
    about, scored = confused([30, 0], [wrong, 30], labels="ab")
    name, said, _, galleries = texts(evaluation_galleries.surest_mistakes, about, scored)
    assert name == title and sum(len(one.items) for one in galleries) == shown and ("No answer is wrong." in said) == (not wrong)


def test_where_all_answers_are_mistakes_that_are_shown_no_gallery_of_the_least_sure_is_made():
    about, scored = confused([0, 4], [4, 0], labels="ab")
    page = Page("Colours")
    evaluation_galleries.least_sure(page, evaluation_page.Results(about, scored, {}))
    assert page.sections == []


# The first table holds what anybody can read; the measures of the scores stand with the scores


def test_the_first_table_says_what_each_measure_means_and_leaves_the_scores_to_their_section():
    about, scored = confused([9, 1, 0, 0], [0, 10, 0, 0], [0, 0, 10, 0], [0, 0, 0, 10], labels="abcd")
    columns, meant = ["measure", "value", "from", "to"], lambda name, said: f"{name[0].upper()}{name[1:]}: " in said
    _, said, (table,), _ = texts(evaluation_page.overall, about, scored)
    assert [row[0] for row in table.rows] == ["accuracy", "right among the first three", "F1, mean of the classes", "F1, weighted by class size"]
    assert table.columns == columns and all(meant(row[0], said) for row in table.rows)
    _, said, (table, errors), _ = texts(evaluation_page.calibration, about, scored)
    assert [row[0] for row in errors.rows] == ["test photos"] and "chance alone" in errors.caption
    assert [row[0] for row in table.rows] == ["log loss", "Brier score", "expected calibration error (ECE)"]
    assert table.columns == columns and all(meant(row[0], said) for row in table.rows) and said.count("lower is better") == 3


# Can its scores be believed? Yes, no, or: these photos cannot tell


def gap(value, low, high):
    return {"value": value, "low": low, "high": high, "shown": not low <= 0 <= high}


@pytest.mark.parametrize("difference, start, holds", [
    (gap(0.015, -0.006, 0.036), "On average, yes:", "So it promises 1.5 percentage points too much (−0.6 to +3.6), which may be chance."), (gap(0.12, 0.08, 0.16), "No: it is too sure, by 12.0 (8.0 to 16.0) percentage points.", ""),
    (gap(0.02, 0.01, 0.03), "Nearly: it is a little too sure, by 2.0 (1.0 to 3.0) percentage points.", ""),
    (gap(-0.12, -0.16, -0.08), "Yes, and it is too careful, by 12.0 (8.0 to 16.0) percentage points.", ""),
    (gap(0.03, -0.05, 0.11), "These 60 photos cannot tell:", "So it promises 3.0 percentage points too much (−5.0 to +11.0), which may be chance."),
])  # fmt: skip
def test_whether_the_scores_can_be_believed_is_answered_in_the_first_words(difference, start, holds):
    about, scored = confused([20, 10], [0, 30], labels="ab", gain=2.0)
    found = scoring.calibration(scored)
    found["change"]["too_sure"] = difference
    said = trust_text.calibration_sentences(about, scored, found)
    assert said[0].startswith(f"{trust_text.SHOULD} {start}") and holds in said[0]
    assert "y its scores, 52.85 of the 60 answers should be right; 50 are, 0.83 (0." in said[0] and ": By" not in said[0] and ". by" not in said[0]
    assert said[-1].startswith("For experts: ") and not any("log loss" in text or "temperature" in text for text in said[:-1])


# The frequent confusions


@pytest.mark.parametrize("pairs, rows, caption", [(3, 3, "All confusions"), (12, 12, "All confusions"), (13, 8, "The most frequent confusions")])
def test_at_most_twelve_pairs_are_all_listed(pairs, rows, caption):
    labels = "abcde"
    counts, cells = np.eye(5, dtype=int) * 9, [(t, a) for t in range(5) for a in range(5) if t != a]
    for place in cells[:pairs]:
        counts[place] = 1
    _, _, (table,), _ = texts(evaluation_page.confusions, *confused(*counts.tolist(), labels=labels))
    assert len(table.rows) == rows and table.caption.startswith(caption) and table.columns == ["is", "was called", "photos", "share of the true class"]


def test_without_a_confusion_no_empty_table_is_shown():
    _, said, tables, _ = texts(evaluation_page.confusions, *confused([9, 0], [0, 9], labels="ab"))
    assert tables == [] and "No answer is wrong." in said


@pytest.mark.parametrize("n", [1, 4])
def test_a_few_photos_that_happen_to_be_right_do_not_make_the_scores_believable(n):
    about, scored = confused([n, 0], [0, 0], labels="ab", gain=4.0)
    said = trust_text.calibration_sentences(about, scored, scoring.calibration(scored))
    assert ("One photo cannot tell:" if n == 1 else "These 4 photos cannot tell:") in said[0] and "yes" not in said[0]


# In words that need no machine learning


def share(value: float, low: float, high: float) -> dict:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize("seen, elsewhere, end", [
    (share(0.91, 0.84, 0.97), share(0.96, 0.92, 0.98), "did not make the result look too good: these photos did no better than the others. The difference, −5.0 (−12.3 to +2.2) percentage points, may be chance."),
    (share(0.97, 0.92, 0.99), share(0.96, 0.92, 0.98), "These photos did better by +1.0 (−4.4 to +5.5) percentage points, which may be chance."),
    (share(0.98, 0.95, 0.99), share(0.70, 0.60, 0.79), "the second number says more about photos that it has never seen, and photos from other places may be harder still."),
])  # fmt: skip
def test_an_advantage_of_photos_seen_before_is_claimed_only_where_it_is_shown(seen, elsewhere, end):
    part = lambda accuracy, n: {"accuracy": accuracy, "n": n}  # noqa: E731
    said = photo_sources.seen_sentence({"collections": ["ImageNet"], "n": 293, "unknown": 0, "seen": part(seen, 69), "elsewhere": part(elsewhere, 224)})
    assert said.endswith(end) and "better guide" not in said and "For photos of your own" not in said


def from_sources(tested: dict[str, list[str]], trained: list[tuple[str | None, str | None]], own: bool = False):
    "An evaluation of test photos (class → source of each) by a model that was trained with photos of these (source, licence)."
    truth, where = zip(*((label, source) for label, some in tested.items() for source in some), strict=True)
    about, scored = judged([(label, [3, 0]) for label in truth], columns=lambda n: {"source": where[n] or None})
    rows = [{"path": f"t{n}.jpg", "label": "Aves", "split": "train", "status": "ok", "sha256": f"{n + 10**6:064d}", "source": source, "licence": licence} for n, (source, licence) in enumerate(trained)]
    tests = [{"path": row["path"], "label": row["truth"], "split": "test", "status": "ok", "sha256": row["sha256"], "source": row["source"]} for row in scored.rows]
    about.own, about.manifest = own, manifest_table([*tests, *rows], "/photos")
    return about, scored


def test_the_licence_of_the_starting_network_is_not_given_for_that_of_the_photos():
    licences = ["CC BY 4.0", "CC0", "research/non-commercial terms", "CC BY-NC-SA 4.0", "none stated (web photos)", None]
    about, scored = from_sources({"Aves": ["a"]}, [("a", licence) for licence in licences])
    about.model.info = replace(about.model.info, spec=replace(about.model.info.spec, weights="ImageNet", licence="Apache-2.0"))
    said = model_card.card(about, scored)["Licence"]
    assert said.startswith("The starting network (ImageNet) is under Apache-2.0. The photos that the model was then trained on have their own licences: of the 6, 2 for research or non-commercial use only, 2 without a stated licence, or with the rights kept by their owners, 2 under CC0, CC BY or the like")
    assert "Do not publish or sell the model before the licences of these photos are cleared." in said
    assert said.endswith("The same goes for this report: it shows some test photos, which have such licences, too.")
    about.manifest = from_sources({"Aves": [""]}, [(None, None)])[0].manifest
    assert model_card.card(about, scored)["Licence"] == "The starting network (ImageNet) is under Apache-2.0."
    about, scored = from_sources({"Aves": ["a"]}, [("a", "CC0")], own=True)  # a model of elsewhere: nothing is known of its photos
    assert model_card.card(about, scored)["Licence"] == "The licence of the starting network (none) is not known. The licences of its training photos are not known."


def test_the_card_says_that_training_and_test_photos_come_from_the_same_sources():
    another = lambda *given, **how: model_card.card(*from_sources(*given, **how))["Another site"]  # noqa: E731
    said = another({"Aves": ["a"] * 7 + ["b"] * 3, "Fungi": ["a"] * 5 + ["b"] * 5}, [("a", None), ("b", None)])
    assert "All 10 test photos" not in said and "All 20 test photos come from the same sources (collections) as the training photos (2 sources). The model may have learned the style of a source, so expect less elsewhere." in said
    assert said.replace("\u00a0", " ").endswith("In the class Aves (7 of 10), more than 60 % of the test photos come from one source, so the results there say least about photos from elsewhere.")
    assert "2 of the 3 test photos come from the same sources (collections) as the training photos (1 source)" in another({"Aves": ["a", "a", "b"]}, [("a", None)])
    assert "No test photo comes from a source of the training photos." in another({"Aves": ["b", "c"]}, [("a", None)])
    for nothing in (another({"Aves": ["", ""]}, [(None, None)]), another({"Aves": ["a"]}, [("a", None)], own=True), another({"Aves": ["simulated"]}, [("simulated", None)])):
        assert " source" not in nothing


def test_many_classes_that_come_from_one_source_are_counted_and_a_few_of_them_are_named():
    scored = SimpleNamespace(labels=[f"class {k}" for k in range(900)], truth=np.repeat(np.arange(900), 10), rows=[{"source": f"s{k // 10 % 7}"} for k in range(9000)])
    said = photo_sources.one_source(scored).replace("\u00a0", " ")
    assert said == "In 900 classes, more than 60 % of the test photos come from one source, so the results there say least about photos from elsewhere: class 0 (10 of 10), class 1 (10 of 10), class 2 (10 of 10), class 3 (10 of 10), class 4 (10 of 10) and 895 more."


def test_the_card_says_what_right_means_where_the_classes_are_the_ten_taxa():
    ten = ("Amphibia", "Animalia", "Arachnida", "Aves", "Fungi", "Insecta", "Mammalia", "Mollusca", "Plantae", "Reptilia")
    does = lambda labels: model_card.card(*judged([(labels[0], [3.0] + [0.0] * (len(labels) - 1))], labels=labels))["What it does"]  # noqa: E731
    said = does(ten)
    assert "one of 10 classes (Amphibia · amphibians, Animalia · other animals, Arachnida · arachnids, " in said
    assert "These are broad groups: an answer is right if it names the right group. It does not name the species." in said
    assert "“Animalia · other animals” means all animals outside the other nine groups, such as fish, starfish and crabs." in said
    few = does(("Animalia", "Aves", "Fungi"))
    assert "These are broad groups" in few and "starfish" not in few  # a spider would be another animal here
    species = does(tuple(f"Parus no{n}" for n in range(1000)))
    assert "broad groups" not in species and "one of 1,000 classes (" in species and "and 988 more)" in species


def test_the_card_says_how_the_training_photos_are_named_below_and_what_a_test_at_another_site_needs():
    about, scored = at_sites("----", train="--")
    about.model.info.provenance["training_photos"] = ["7" * 16, "8" * 16]
    rows = about.manifest.to_pylist()
    rows[-1]["split"] = "valid"
    about.manifest = manifest_table(rows, "/photos")
    card = model_card.card(about, scored)
    assert card["Made with"].startswith("2 different photos. In the tables below, 1 is named train and 1 valid.")
    about.model.info.provenance["training_photos"] = ["7" * 16]
    assert "1 is named train and 1 valid, copies among them." in model_card.card(about, scored)["Made with"]
    assert card["Another site"].startswith("Not tested: the test photos do not say where they were taken.")
    assert "some 100 photos" in card["Another site"] and "one folder for each class" in card["Another site"] and "species-wb evaluate MODEL PHOTOS" in card["Another site"]
    about.own = True
    assert "tables below" not in model_card.card(about, scored)["Made with"]


def parts_of(*accuracies: tuple[float, float, float], expected: float = 0.9) -> list[dict]:
    return [{"value": f"p{k}", "known": True, "n": 40, "classes": 3, "accuracy": share(*one), "expected": expected} for k, one in enumerate(accuracies)]


def test_a_weak_source_is_named_only_where_it_is_established():
    said = subgroups.part_sentence("source", parts_of((0.86, 0.71, 1.0), (0.95, 0.9, 0.98)))
    assert said == "No source is shown to be harder than its classes explain."
    said = subgroups.part_sentence("source", parts_of((0.5, 0.4, 0.6), (0.7, 0.6, 0.8), (0.95, 0.9, 0.98)))
    assert said == "The source p0 is harder than its classes explain: 0.50 (0.40 to 0.60) of its 40 photos are named right, and 0.90 is expected. This holds for 2 of the 3 parts."


def test_the_section_on_parts_is_named_after_the_columns_there_are(tmp_path):
    about, scored = judged([("Aves", [3, 0])] * 40, columns=lambda n: {"source": "ab"[n % 2]})
    headings = []
    for found in ({"source": parts_of((0.9, 0.8, 0.95))}, {"site": parts_of((0.9, 0.8, 0.95)), "source": parts_of((0.9, 0.8, 0.95))}):
        page = Page("Parts")
        evaluation_page.places(page, evaluation_page.Results(about, scored, {}, parts=found))
        headings.append(page.sections[-1].heading.title)
        (first, *_) = page.sections[-1].pieces[0].paragraphs
        assert "Expected: what a part would reach if only its classes mattered." in first and "about 1 row in 40 would look too weak by chance" in first
    assert headings == ["By source", "By site and source"]
    assert "No test photo names its site." in subgroups.explained(scored)
    assert "site" not in subgroups.explained(judged([("Aves", [3, 0])] * 4, columns=lambda n: {"site": "a"})[1])


def test_a_time_that_could_not_be_measured_well_is_not_printed_as_if_it_were():
    about = SimpleNamespace(model=SimpleNamespace(size=10**6))
    latency = {"cpu": "a laptop", "threads": 2, "p50": 23.7, "low": 16.2, "high": 24.6, "n": 60, "halves": [7.22, 24.8], "others": 0.8, "batch": 1, "batches": 46, "slowest_rate": 33.4, "fastest_rate": 153.0}
    (said,) = evaluation_text.speed_sentences(about, latency)
    assert "could not be measured well: in one half of the measurement, a photo took 7.22 ms, and in the other 24.8 ms (medians, n = 60 photos; the figure shows the single times)" in said
    assert "Other programs used 0.8" in said and said.endswith("Measure again when the machine is idle.") and "23.7" not in said
    (said,) = evaluation_text.speed_sentences(about, latency | {"halves": [23.0, 24.8]})
    assert "one photo takes 23.7 ms" in said and "measured well" not in said


@pytest.mark.usefixtures("workspace")
def test_the_origin_of_a_report_says_each_thing_once(tmp_path):
    about, _ = judged([("Aves", [3, 0])] * 4)
    about.run = tmp_path / "new"
    about.run.mkdir()
    about.model.path, about.params = about.run / "model.onnx", {"photos": "/my/photos", "method": "auto", "weights": "auto", "seed": 0}
    core.write_json(about.run / "plan.json", {"method": "probe", "weights": "imagenet"})
    about.model.info.provenance.update({"run": "new", "seed": 7, "versions": runs.versions()})
    facts = evaluation_text.provenance(about)
    assert [key for key, value in facts.items() if value == "new" or str(value).startswith("new,")] == ["run"] and facts["model"] == "sha256 " + "0" * 64
    assert "method='auto' (chosen: probe), weights='auto' (chosen: imagenet), seed=0" in facts["parameters"]
    assert facts["the model: seed"] == 7 and "the model: made with" not in facts and "made and scored with" in facts
    about.model.info.provenance.update({"run": "old", "versions": {"torch": "1.0"}})
    facts = evaluation_text.provenance(about)
    assert facts["the model: run"] == "old" and facts["the model: made with"] == "torch 1.0" and "scored with" in facts


def test_how_it_was_trained_begins_with_a_plain_sentence():
    about, _ = judged([("Aves", [3, 0])] * 4)
    about.model.info = replace(about.model.info, spec=replace(about.model.info.spec, weights="ImageNet"))
    first = lambda: evaluation_text.training_sentences(about)[0]  # noqa: E731
    about.training = {"method": "probe", "sentences": ["More."]}
    assert first() == "An already trained network (ImageNet) was taken as it is, and only its last layer was trained on these photos. The rest of this page is for people who make models."
    about.training["method"] = "finetune"
    assert first().startswith("All layers of the network were trained on these photos, beginning with an already trained network (ImageNet).")
    about.model.info = replace(about.model.info, spec=replace(about.model.info.spec, weights="random numbers"))
    assert first().startswith("All layers of the network were trained on these photos, beginning with random numbers.")
    about.training = {}
    assert first().startswith("This model file was trained elsewhere")


def test_of_many_classes_with_few_photos_each_none_is_called_the_worst(tmp_path):
    labels = [f"species {k}" for k in range(60)]
    photos = [(label, np.eye(60)[(k + (k % 3 == 0)) % 60] * 9) for k, label in enumerate(labels) for _ in range(2)]
    _, scored = judged(photos, labels)
    assert evaluation_text.worst_words(scored) == "No class has 10 test photos or more, so the test cannot say which class is the worst."
    page = Page("classes")
    evaluation_page.classes(page, SimpleNamespace(scored=scored))
    page.write(tmp_path / "report.html")
    said = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Each class has fewer than 10 test photos. The order says little" in said and "weakest class is" not in said


# A second reader: what to do, numbers that agree, every licence counted, copies counted


def test_the_report_says_what_to_do_about_a_weak_class():
    about, scored = confused([29, 2, 2, 0], [1, 24, 1, 0], [0, 0, 32, 0], [0, 1, 0, 31], labels="abcd")
    said = evaluation_text.what_to_do(scored)
    assert said == (
        "If b matters to you, look at every photo called so (3 of 27 were wrong). "
        "To find more photos of a, look through those called b or c: all 4 that were missed were called so."
    )
    assert said in texts(evaluation_page.classes, about, scored)[1]
    many = confused([20, 4, 3, 2, 1, 1], *np.diag([30] * 6).tolist()[1:], labels="abcdef")[1]
    assert evaluation_text.what_to_do(many).endswith("look through those called b, c or d: 9 of the 11 that were missed were called so.")
    tie = evaluation_text.what_to_do(confused([9, 1, 0], [1, 9, 0], [0, 0, 10])[1])
    assert tie.startswith("If one of the classes matters to you, look at every photo that gets its name")
    assert evaluation_text.what_to_do(confused([30, 0], [0, 30], labels="ab")[1]) == ""


@pytest.mark.parametrize("n, gain", [(60, 2.0), (140, 2.6), (400, 3.0), (17, 1.5)])
def test_the_answers_that_should_be_right_agree_with_the_percentage_points(n, gain):
    wrong = n // 9
    about, scored = confused([n - wrong, wrong], [0, n], labels="ab", gain=gain)
    said = trust_text.calibration_sentences(about, scored, scoring.calibration(scored))[0]
    should, right = (float(number.replace(",", "")) for number in re.search(r"scores, ([\d.,]+) of the .*; ([\d,]+) are", said).groups())
    points = float(re.search(r"(?:by|promises) ([\d.]+) ?(?:percentage|\()", said)[1])
    assert abs(100 * abs(should - right) / (2 * n) - points) <= 0.1


def test_the_licence_of_every_training_photo_is_counted_once():
    texts_ = {
        "limited": ["ImageNet terms", "CC BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc/4.0/", "repo MIT; photos (CC BY-SA / CC BY-NC-SA per photo)"],
        "none": ["", "none", "none stated", "All rights reserved", "repo MIT; photo owners not stated", "CC BY 4.0 at a library (images from Google Image Search, owners copyright)"],
        "free": ["CC0", "CC BY 4.0 (repo)", "CC BY-SA 3.0", "https://creativecommons.org/publicdomain/zero/1.0/", "Public Domain Mark 1.0"],
        "other": ["repo MIT; images per repo", "ask me"],
    }  # fmt: skip
    for kind, some in texts_.items():
        for text in some:
            assert photo_sources.licences_count([{"licence": text} if text else {}])[kind] == 1, text
    every = [("a", text or None) for some in texts_.values() for text in some]
    about, scored = from_sources({"Aves": ["a"]}, every)
    said = photo_sources.licences_sentence(about.manifest)
    of, *counts = map(int, re.findall(r"(?:of the|,) (\d+)", said.split("own licences")[1]))
    assert of == len(every) == sum(counts) and len(counts) == 4
    free = photo_sources.licences_sentence(from_sources({"Aves": ["a"]}, [("a", "CC0")])[0].manifest)
    assert "Do not publish" not in free and "1 under CC0" in free


def test_the_card_counts_the_test_photos_that_were_training_photos():
    about, scored = judged([("Aves", [3, 0])] * 4)
    about.model.info.provenance["training_photos"] = ["7" * 16]
    assert "No test photo was identical to one of them. Resized or lightly edited copies were looked for, too" in model_card.card(about, scored)["Made with"]
    scored.not_scored["trained"], about.own = 2, True
    said = model_card.card(about, scored)["Made with"]
    assert "2 test photos were identical to one of them, and left out of the test. Resized or edited copies of training photos could not be looked for." in said


def test_a_disturbed_time_on_an_idle_machine_is_not_blamed_on_other_programs():
    about = SimpleNamespace(model=SimpleNamespace(size=10**6))
    latency = {"cpu": "a laptop", "threads": 2, "n": 60, "halves": [5.29, 6.66], "others": 0.0}
    (said,) = evaluation_text.speed_sentences(about, latency)
    assert said.endswith("So they were not the reason. Measure again: the times may change.") and "is idle" not in said


def test_the_card_says_what_the_model_is_for_and_what_it_is_not_for():
    card = model_card.card(*judged([("Aves", [3, 0])] * 3 + [("Fungi", [3, 0])]))
    assert card["Made for"].startswith("A first sorting of photos into these broad groups: 3 of 4 were right in the test, 0.75 (0.")
    assert card["Not for"].startswith("Naming the species, counting animals, ") and "none of its classes" in card["Not for"]
    card = model_card.card(*judged([("Parus major", [3, 0])] * 3, labels=("Parus major", "Parus ater")))
    assert card["Made for"].startswith("Sorting photos into these classes: 3 of 3") and "species" not in card["Not for"]
