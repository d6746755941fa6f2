"""“Can I trust this model?”: what a training writes down of left-out places and worsened copies, and what the report says of it."""

import json

import numpy as np
import pyarrow as pa
import pytest
from test_report_words import judged, texts

from species_wb.evaluate import declines, evaluation_page, travel, trust_page
from species_wb.metrics import promises
from species_wb.report.page import Page
from species_wb.train import left_out
from species_wb.train.choice import Choice
from species_wb.train.training_set import TrainingSet

LABELS = ["Aves", "Fungi", "Mammalia"]


def rows_of(n: int, sites: int = 4, wrong=lambda k, copy: False, score: float = 0.9) -> pa.Table:
    "Photos of some sites with their copies; every second copy is at night."
    rows = []
    for k in range(n):
        for copy in (False, True):
            how = {"frame": "whole", "light": ("night", "day")[k % 2], "file": "sharp"} if copy else {}
            missed = wrong(k, copy)
            rows.append({"photo": k, "group": k, "place": f"site {k % sites}" if sites > 1 else None, "label": LABELS[k % 3], "copy": copy, "score": score,
                         "true_score": score, "answer": LABELS[(k + missed) % 3], "set_size": 1, "set_holds": not missed, "within": 0.05, **how})  # fmt: skip
    return pa.Table.from_pylist(rows, left_out.SCHEMA.with_metadata({"kind": "site" if sites > 1 else "", "rate": "0.9"}))


@pytest.fixture
def known(tmp_path):
    "Read a table as a run folder holds it."

    def read(table: pa.Table) -> travel.Travel:
        left_out.write_left_out(table, tmp_path)
        return travel.read(tmp_path)

    return read


def results_of(found: travel.Travel | None, **more) -> evaluation_page.Results:
    "90 test photos, of which every tenth gets a wrong name, and what a run knows of other places."
    photos = [(LABELS[k % 3], (3.0 * np.eye(3)[(k + (k % 10 == 0)) % 3]).tolist()) for k in range(90)]
    return evaluation_page.Results(*judged(photos, tuple(LABELS), **more), {}, travel=found)


def plain(paragraphs: list[str]) -> str:
    return " ".join(paragraphs).replace("\u00a0", " ")


# What a training writes down


def test_the_table_of_a_run_holds_what_its_training_says(trained):
    found, validation = travel.read(trained), json.loads((trained / "training.json").read_text())["validation"]
    assert found.kind == validation["left_out"] == "site" and len(found.photos) == len(found.copies) == validation["n"]
    shares = [travel.of_table(table).right.mean() for table in (found.photos, found.copies)]
    assert shares == pytest.approx([validation["accuracy"], validation["worse_accuracy"]])
    assert {"photo", "place", "score"} <= set(found.photos.schema.names) and not {"path", "sha256"} & set(found.photos.schema.names)
    report = (trained / "report.html").read_text(encoding="utf-8")
    assert report.count(">Can I trust this model?<") == 2 and "How it travels" in report  # in the contents, and as a heading


def away(wrong_at_first: bool) -> pa.Table:
    "Photos of five sites, all sure and right, but at the first site sure and wrong."
    truth, site = np.arange(500) % 3, np.arange(500) // 100
    said = np.where((site == 0) & wrong_at_first, (truth + 1) % 3, truth)
    shas = [f"{k:064d}" for k in range(500)]
    photos = TrainingSet([(sha, "") for sha in shas], truth, np.arange(500), np.repeat("train", 500), site, "site")
    parts = [(np.flatnonzero(site != s), np.flatnonzero(site == s)) for s in range(5)]
    logits = (8 * np.eye(3)[said] + np.random.default_rng(0).normal(size=(500, 3)))[None]
    choice = Choice({"temperature": 1.0}, {}, [], [], None, "site", logits, photos, parts)
    return left_out.left_out_table(choice, LABELS, dict(zip(shas, map(str, site), strict=True)), 0.9, 0)


def test_the_promises_for_a_place_come_from_the_other_places_alone():
    kept, broken = (away(wrong).to_pylist() for wrong in (False, True))
    assert all(row["within"] is not None and row["within"] <= 0.05 + 1e-6 for row in kept)
    first, others = ([row for row in broken if (row["place"] == "0") == is_first] for is_first in (True, False))
    assert all(row["within"] <= 0.05 + 1e-6 and not row["set_holds"] for row in first)  # nothing was known of its own mistakes
    assert all((row["within"] or 1) > 0.05 + 1e-6 for row in others)  # the mistakes at the first site count for them


# What the report says


def test_the_page_gives_the_share_wrong_at_left_out_places_with_the_hardest_and_the_easiest(known):
    found = known(rows_of(200, wrong=lambda k, copy: k % 4 == 0 and k % 8 == 0))  # half of the photos at site 0
    said, rows = plain(trust_page.new_site(results_of(found))), travel.table(travel.by_place(found))
    assert "Expect 12 % (8 to 17 %) of its answers to be wrong, or more. This was measured on 200 training photos of 4 sites: one site after the other was left out of the training" in said
    assert "At the hardest site (site 0), 25 of 50 were wrong; at the easiest, 0 of 50." in said
    assert [row[:2] for row in rows[:2]] == [["site 0", 50], ["site 1", 50]] and rows[0][2].startswith("0.50 (")


def test_copies_are_counted_by_what_was_done_to_them(known):
    found = known(rows_of(80, wrong=lambda k, copy: copy and k % 2 == 0))  # every copy at night, no other
    rows = {row[0]: row for row in travel.table(travel.by_kind(found))}
    assert rows["at night (grey, lit by a flash)"][1:] == [40, "0.00 (0.00 to 0.09)", "0.90"] and rows["all worsened copies"][2].startswith("0.50 (")


def test_with_one_place_only_it_is_not_known_and_the_page_says_what_to_do(known):
    about = results_of(known(rows_of(20, sites=1)))
    _, said, tables, _ = texts(trust_page.trust, about.judged, about.scored, travel=about.travel)
    assert "Not known. The training photos do not name two places or more" in said and "--metadata" in said and "some 100 photos" in said
    assert "Expect" not in said and [row[0] for row in tables[0].rows] == ["all worsened copies", "at night (grey, lit by a flash)"]


@pytest.mark.parametrize("method, start", [("finetune", "Not known: while all layers"), ("probe", "Not tested: the test photos do not say where")])
def test_without_such_a_table_the_page_says_so(method, start):
    about, scored = judged([("Aves", [3, 0]), ("Fungi", [0, 3])] * 20)
    about.training = {"method": method}
    results = evaluation_page.Results(about, scored, {})
    assert plain(trust_page.new_site(results)).strip().startswith(start) and len(trust_page.ninety(results)) == 2
    assert declines.rows(declines.kinds(about.model.info, scored, None))[1] == ["left out", "test photos: answered"]


def test_scores_are_believed_at_home_and_not_elsewhere(known):
    said = plain(trust_page.ninety(results_of(known(rows_of(300, wrong=lambda k, copy: k % 2 == 0)))))
    assert "Photos of left-out sites: no: it is too sure, by 40.0" in said and "Test photos: " in said
    assert "150 of 300 (photos of left-out sites), 0.50 (" in said


def test_no_word_of_experts_is_needed_for_the_five_answers(known):
    about = results_of(known(rows_of(40)))
    said = plain([paragraph for answer in trust_page.QUESTIONS.values() for paragraph in answer(about)])
    for word in ("logit", "ECE", "softmax", "log loss", "temperature", "conformal", "embedding", "out of fold", "accuracy"):
        assert word not in said, word


def test_what_is_left_out_is_counted_for_each_kind_of_photos(known):
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=600)
    made = promises.promises(rng.normal(size=(600, 3)) + 3 * np.eye(3)[truth], truth, LABELS, 1.0)
    found = known(rows_of(100, wrong=lambda k, copy: k < 10))
    about = results_of(found, conformal=made.conformal, risk=made.risk)
    said, (body, _) = plain(trust_page.unseen(about)), declines.rows(declines.kinds(about.judged.model.info, about.scored, found))
    rows = {row[0]: [plain([cell]) for cell in row[1:]] for row in body}
    assert rows["nothing"][0].startswith("90 of 90: 10 % (") and rows["nothing"][1].startswith("100 of 100: 10 % (")
    assert rows[declines.ERROR.format(0.02)][1] == "none answered" and rows[declines.ERROR.format(0.05)][2].startswith("100 of 100: 10 %")
    assert "With --max-error 0.05, " in said and "100 of 100 photos of left-out sites, 10 of them wrong" in said


def test_the_card_does_not_repeat_what_the_page_says():
    about, scored = judged([("Aves", [3, 0]), ("Fungi", [0, 3])] * 20)
    page, results = Page("Colours"), evaluation_page.Results(about, scored, {})
    evaluation_page.limits(page, results)
    card = " ".join(said for piece in page.sections[0].pieces for _, said in piece.facts)
    assert "some 100 photos from there" in plain(trust_page.new_site(results)) and "some 100 photos from there" not in card
    assert "which photos it was trained with" in plain(trust_page.trained_on(results)) and "which photos it was trained with" not in card
