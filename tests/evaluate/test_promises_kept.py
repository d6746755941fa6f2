"""The report says whether the model's promises held on the test photos, and says so when they did not."""

import json

import numpy as np
import pytest
from test_report_words import judged

from species_wb.evaluate import evaluation_page, promises_kept
from species_wb.metrics.promises import promises
from species_wb.report.page import Page

LABELS = ["Aves", "Fungi", "Mammalia"]


def drawn(n: int, seed: int, harder: float = 1.0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=n)
    return rng.normal(size=(n, 3)) + 2.2 * harder * np.eye(3)[truth], truth


def report(harder: float, columns=None, known=None) -> str:
    logits, truth = drawn(600, 0)
    made = promises(logits, truth, LABELS, 1.0)
    new, true = drawn(400, 1, harder)
    photos = [(LABELS[t], z.tolist()) for t, z in zip(true, new, strict=True)]
    kept = {"conformal": made.conformal, "risk": made.risk} if known is None else known
    about, scored = judged(photos, tuple(LABELS), columns=columns, **kept)
    page = Page("Promises")
    evaluation_page.unanswered(page, evaluation_page.Results(about, scored, {}))
    return json.dumps([[str(vars(section)), [str(vars(piece)) for piece in section.pieces]] for section in page.sections], ensure_ascii=False)


def test_promises_that_held_are_shown_with_n_and_intervals_by_class_and_rate():
    said = report(1.0)
    assert promises_kept.HEADING in said and "The promise was kept." in said and "was not kept" not in said
    assert "of 400 sets do, 0.9" in said and "600 photos" in said and "photos of the same kind" in said
    assert all(label in said for label in LABELS) and "sets of 90 % that hold it" in said


def test_promises_that_did_not_hold_are_called_broken():
    said = report(0.4)
    assert "The promise was not kept, and chance does not explain it" in said and "The promise was kept." not in said


def test_sites_have_a_table_of_their_own():
    assert "The sets by site" in report(1.0, columns=lambda n: {"site": ("north", "south")[n % 2]})
    assert "The sets by site" not in report(1.0)


def test_a_model_that_promises_nothing_has_no_such_section():
    assert promises_kept.HEADING not in report(1.0, known={})


@pytest.mark.parametrize("conformal", [{"0.9": {"method": "lac", "quantile": 0.4}}])
def test_the_number_of_an_older_file_is_enough(conformal):
    assert "their number is not known" in report(1.0, known={"conformal": conformal})
