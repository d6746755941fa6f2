"""What the confusion explorer shows is what stands in the run and in the corrections, whatever a table holds.
Nothing that a person corrects touches a photo."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from species_wb import core
from species_wb.curate import confusions, one_photo
from species_wb.curate.correct import correct, undo
from species_wb.curate.predictions import Predictions, open_predictions, refresh
from species_wb.engine import toy
from species_wb.photos import corrections
from species_wb.engine.model_file import open_model
from species_wb.core import UserError
from species_wb.photos.reading import BadPhoto
from species_wb.photos.pixels import encode_jpeg
from species_wb.predictions import predictions_table, write_predictions
from species_wb.runs import set_state

COLOURS = {"red": (200, 40, 40), "green": (40, 190, 40)}


def photo(colour: str, seed: int) -> bytes:
    grain = np.random.default_rng(seed).normal(0, 12, (60, 80, 3))
    return encode_jpeg(np.clip(np.array(COLOURS[colour]) + grain, 0, 255).astype(np.uint8))


def a_row(
    folder: Path, name: str, shows: str, truth: str | None, answer: str | None, score: float | None, **more
) -> dict:
    "A photo, and its row in a table of predictions."
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(photo(shows, int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)))
    sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    top = [{"label": answer, "score": score}, {"label": "other", "score": 0.01}] if answer else None
    said = {"label": answer, "score": score, "top": top, "abstained": False, "truth": truth}
    return {"path": name, "sha256": sha256, "status": "ok", **said, **more}


def make_run(home: Path, name: str = "toy-1", state: str = "finished") -> Path:
    "A run of eight photos: four red ones of which one is taken for green, three green ones, one that was left open."
    run, folder = home / "reports" / "train" / name, home / "photos"
    run.mkdir(parents=True)
    model = toy.write_toy(run / "model.onnx", ("red", "green"), (0, 1), ((1, -1), (-1, 1), (0, 0)))
    more = {"split": "test", "model": open_model(model, 1).sha256[:16]}
    given = [("red", "red", 0.99, "pond"), ("red", "red", 0.7, "pond"), ("red", "red", 0.8, "hill")]
    given += [("red", "green", 0.95, "pond")]
    given += [("green", "green", 0.6, "hill"), ("green", "green", 0.9, None), ("green", "green", 0.5, None)]
    rows = []
    for k, (truth, answer, score, site) in enumerate(given):
        embedding = [score, float(answer == "red"), 1.0]
        name = f"{truth}{k}.jpg"
        rows.append(a_row(folder, name, truth, truth, answer, score, site=site, embedding=embedding, **more))
    left_open = a_row(folder, "open.jpg", "red", "red", None, None, score_raw=0.4, embedding=[0.4, 0.5, 1.0], **more)
    rows.append(left_open | {"abstained": True})
    write_predictions(predictions_table(rows, folder, ["red", "green"]), run / "predictions.parquet")
    set_state(run, state)
    return run


@pytest.fixture
def run(workspace) -> Path:
    return make_run(workspace)


def counts(opened: Predictions) -> dict[tuple[str, str], int]:
    found = confusions.matrix(opened)
    return {(found["rows"][r], found["columns"][c]): n for r, c, n in found["counts"]}


BEFORE = {("red", "red"): 3, ("red", "green"): 1, ("red", "not sure"): 1, ("green", "green"): 3}


def test_the_matrix_counts_every_photo_once_and_what_was_left_open_too(run):
    opened = open_predictions(run)
    assert counts(opened) == BEFORE
    assert confusions.matrix(opened)["said"] == ["6 of 8 labelled photos are named right (75\u00a0%)."]


def test_nothing_named_means_the_newest_finished_run(workspace, run):
    assert open_predictions().table == run / "predictions.parquet"
    make_run(workspace, "toy-2", state="running")
    newer = make_run(workspace, "toy-3")
    os.utime(newer / "status.json", (2e9, 2e9))
    assert open_predictions().name == "toy-3"


def test_a_run_is_opened_without_its_wide_columns(run, monkeypatch):
    asked, real = [], pq.read_table

    def read_table(path, columns=None, **more):
        asked.append(columns)
        return real(path, columns=columns, **more)

    monkeypatch.setattr(pq, "read_table", read_table)
    opened = open_predictions(run)
    confusions.matrix(opened), confusions.photos_of_cell(opened, "red")
    assert len(asked) == 1 and not set(asked[0]) & {"embedding", "logits", "top"}
    one_photo.detail(opened, 0), one_photo.detail(opened, 1)
    assert asked[1:] == [["embedding"], ["top"]]  # once, when they are wanted


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("labelled", [True, False])
def test_every_format_of_classify_opens_with_or_without_truth(workspace, monkeypatch, ending, labelled):
    given, truth = (("a.jpg", "red"), ("b.jpg", "green")), "red" if labelled else None
    rows = [a_row(workspace / "cards", name, "red", truth, answer, 0.8) for name, answer in given]
    rows.append({"path": "notes.txt", "status": "not-a-photo", "reason": "notes.txt is text, not a photo."})
    if not labelled:
        for row in rows:
            row.pop("truth", None)
    table = workspace / "cards" / f"answers{ending}"
    write_predictions(predictions_table(rows, workspace / "cards", ["red", "green"]), table)
    opened = open_predictions(table)
    unlabelled = {("not labelled", "red"): 1, ("not labelled", "green"): 1, ("not labelled", "no answer"): 1}
    assert counts(opened) == ({("red", "red"): 1, ("red", "green"): 1} if labelled else unlabelled)
    assert [one["label"] for one in one_photo.detail(opened, 0)["top"]] == ["red", "other"]
    assert one_photo.small_photo(opened, 0)[:2] == b"\xff\xd8"  # paths of a .csv are found beside it
    assert any("left out" in text for text in confusions.matrix(opened)["said"]) is labelled
    monkeypatch.chdir("/")
    assert one_photo.small_photo(open_predictions(table, photos=workspace / "cards"), 1)


def test_photos_that_the_run_set_aside_are_counted_and_not_shown(workspace):
    splits = ("test", None)
    rows = [a_row(workspace, f"{k}.jpg", "red", "red", "red", 0.9, split=split) for k, split in enumerate(splits)]
    write_predictions(predictions_table(rows, workspace, ["red"]), workspace / "a.parquet")
    opened = open_predictions(workspace / "a.parquet")
    assert len(opened.rows) == 1 and "set aside by the run" in opened.left_out[0]


def test_wide_columns_stay_with_their_rows_when_some_are_left_out(workspace):
    rows = [{"path": "notes.txt", "status": "not-a-photo", "truth": None, "embedding": None}]
    for k, answer in enumerate(("red", "green", "red")):
        rows.append(a_row(workspace, f"{k}.jpg", "red", "red", answer, 0.9, embedding=[float(k), 1.0]))
    write_predictions(predictions_table(rows, workspace, ["red", "green"]), workspace / "a.parquet")
    opened = open_predictions(workspace / "a.parquet")
    about = one_photo.detail(opened, 1)
    assert about["name"] == "1.jpg" and about["top"][0]["label"] == "green"
    assert [one["name"] for one in about["neighbours"]] == ["2.jpg", "0.jpg"]


@pytest.mark.parametrize("make, words", [
    (lambda p: p, "is not there"),
    (lambda p: p.write_bytes(b"PAR1 not really"), "cannot be read as a table of predictions"),
    (lambda p: write_predictions(predictions_table([], ".", []), p), "has no rows"),
    (lambda p: pq.write_table(pa.table({"a": [1]}), p), "no columns path and label"),
])  # fmt: skip
def test_what_is_no_table_of_predictions_is_said(workspace, make, words):
    make(workspace / "x.parquet")
    with pytest.raises(UserError, match=words):
        open_predictions(workspace / "x.parquet")
    (workspace / "x.jsonl").write_text("[1]\n{")
    with pytest.raises(UserError, match="cannot be read"):
        open_predictions(workspace / "x.jsonl")


def test_odd_values_of_a_strangers_table_do_no_harm(workspace):
    (workspace / "a.jsonl").write_text(
        '{"path": "a.jpg", "label": 3, "truth": 0, "score": NaN, "sha256": 7, "lat": "north"}\n'
        '{"path": "b.jpg", "label": null, "abstained": true, "score": "0.5"}\n'
    )
    opened = open_predictions(workspace / "a.jsonl")
    assert counts(opened) == {("0", "3"): 1, ("not labelled", "not sure"): 1}
    json.dumps([one_photo.detail(opened, k) for k in (0, 1)], allow_nan=False)


def test_photos_of_a_cell_come_most_confident_first_and_are_filtered(run):
    opened = open_predictions(run)

    def names(*given, **more):
        return [confusions.card(opened, k)["name"] for k in confusions.photos_of_cell(opened, *given, **more)]

    assert names("red", "red") == ["red0.jpg", "red2.jpg", "red1.jpg"]
    assert names("red", low=0.75, high=0.96) == ["red3.jpg", "red2.jpg"]
    assert names("red", "red", site="hill") == ["red2.jpg"]
    assert names(taken_for="green") == ["red3.jpg", "green5.jpg", "green4.jpg", "green6.jpg"]
    assert names("red", "not sure") == ["open.jpg"]
    assert len(names()) == 8


def test_a_thumbnail_is_made_once_and_kept_under_the_photos_sha256(run, workspace, monkeypatch):
    opened = open_predictions(run)
    first = one_photo.small_photo(opened, 0)
    kept = [path for path in (workspace / ".cache" / "thumbnails").rglob("*") if path.is_file()]
    assert [path.name.split("-")[0] for path in kept] == [opened.rows[0]["sha256"]]
    monkeypatch.setattr(one_photo, "decode", None)
    assert one_photo.small_photo(open_predictions(run), 0) == first


def test_without_a_workspace_thumbnails_are_kept_in_memory_and_a_correction_says_what_to_do(run, tmp_path, monkeypatch):
    def none():
        raise UserError("No workspace found")

    for module in ("workspace", "curate.predictions", "photos.corrections"):
        monkeypatch.setattr(f"species_wb.{module}.workspace", none)
    opened = open_predictions(run)
    assert one_photo.small_photo(opened, 0) is one_photo.small_photo(opened, 0)
    with pytest.raises(UserError, match="No workspace"):
        correct(opened, [0], "flag")


def test_a_photo_that_is_gone_broken_or_changed_gives_its_sentence(run, workspace):
    opened, folder = open_predictions(run), workspace / "photos"
    (folder / "red0.jpg").unlink()
    (folder / "red1.jpg").write_bytes(photo("green", 5))
    broken = photo("red", 77)[:400]
    (folder / "red2.jpg").write_bytes(broken)
    opened.rows[2]["sha256"] = hashlib.sha256(broken).hexdigest()
    told = ("red0.jpg is not there", "has changed since it was classified", "red2.jpg is cut short")
    for k, words in enumerate(told):
        for look in (one_photo.small_photo, one_photo.large_photo, lambda o, k: one_photo.heat_map_photo(o, k, "red")):
            with pytest.raises(BadPhoto, match=words):
                look(opened, k)
    assert one_photo.detail(opened, 0)["name"] == "red0.jpg"


def test_a_photo_in_a_zip_archive_is_shown_and_a_film_says_what_to_do(workspace):
    data = photo("red", 3)
    with zipfile.ZipFile(workspace / "card.zip", "w") as archive:
        archive.writestr("dcim/a.jpg", data)
    sha256, said = hashlib.sha256(data).hexdigest(), {"status": "ok", "label": "red"}
    rows = [{"path": "card.zip", "member": "dcim/a.jpg", "sha256": sha256, "score": 0.5, **said}]
    rows += [{"path": "fox.mp4", "seconds": 12.0, "score": 0.4, **said}]
    write_predictions(predictions_table(rows, workspace, ["red"]), workspace / "a.parquet")
    opened = open_predictions(workspace / "a.parquet")
    assert one_photo.small_photo(opened, 0)[:2] == b"\xff\xd8" and confusions.card(opened, 0)["name"] == "a.jpg"
    with pytest.raises(BadPhoto, match="film.*12 s"):
        one_photo.small_photo(opened, 1)


def test_what_is_no_sha256_is_not_believed(workspace):
    rows = [a_row(workspace, "a.jpg", "red", "red", "red", 0.9) | {"sha256": "../../../evil"}]
    write_predictions(predictions_table(rows, workspace, ["red"]), workspace / "a.csv")
    opened = open_predictions(workspace / "a.csv")
    assert one_photo.small_photo(opened, 0) and not list(workspace.rglob("*evil*"))
    with pytest.raises(UserError, match="cannot be corrected, because this table does not hold its SHA-256"):
        correct(opened, [0], "flag")
    assert "cannot be corrected" in one_photo.detail(opened, 0)["fixed"]


def test_neighbours_and_maps_come_with_a_photo_or_it_is_said_why_not(run, workspace):
    opened = open_predictions(run)
    about = one_photo.detail(opened, 3)
    assert about["maps"] == ["green", "red"] and len(about["neighbours"]) == 7
    assert about["why_none"] == "" == about["why_no_map"]
    assert {one["truth"] for one in about["neighbours"][:3]} == {"green"}  # alike by their features
    picture, said = one_photo.heat_map_photo(opened, 3, "red")
    assert picture[:2] == b"\xff\xd8" and "occlusion" in said.lower()
    with pytest.raises(UserError, match="does not know 'owl'"):
        one_photo.heat_map_photo(opened, 3, "owl")
    row = {k: v for k, v in a_row(workspace, "z.jpg", "red", None, "red", 0.9).items() if k != "truth"}
    write_predictions(predictions_table([row], workspace, ["red"]), workspace / "plain.csv")
    plain = one_photo.detail(open_predictions(workspace / "plain.csv"), 0)
    assert "open a run folder" in plain["why_none"] and "model.onnx" in plain["why_no_map"] and plain["maps"] == []


def test_no_map_is_drawn_with_another_model_than_the_one_that_answered(run):
    toy.write_toy(run / "model.onnx", ("red", "green"), (0, 1), ((2, -1), (-1, 1), (0, 0)))
    opened = open_predictions(run)
    assert "another model" in one_photo.detail(opened, 0)["why_no_map"]
    with pytest.raises(UserError, match="another model"):
        one_photo.heat_map_photo(opened, 0, "red")


def test_a_relabelled_photo_moves_and_an_excluded_one_leaves(run):
    opened = open_predictions(run)
    paths = [*run.rglob("*"), *(run.parents[2] / "photos").rglob("*")]
    before = {path: path.read_bytes() for path in paths if path.is_file()}
    said = correct(opened, [3], "relabel", "green")
    written = f"written to {corrections.file()}; the photo itself stays as it is."
    assert said.startswith(f"red3.jpg is relabelled to green: {written}")
    correct(opened, [0, 1], "exclude")
    assert counts(opened) == {("red", "red"): 1, ("red", "not sure"): 1, ("green", "green"): 4}
    assert "Corrections counted here: 1 relabelled, 2 excluded." in confusions.matrix(opened)["said"]
    assert confusions.photos_of_cell(opened, corrected="exclude") == [0, 1]
    assert confusions.photos_of_cell(opened, corrected="any") == [0, 3, 1]
    assert 0 not in confusions.photos_of_cell(opened)
    rows = corrections.read_corrections()
    assert [(row["path"], row["action"], row["old_label"], row["new_label"]) for row in rows] == [
        ("red3.jpg", "relabel", "red", "green"), ("red0.jpg", "exclude", "red", ""), ("red1.jpg", "exclude", "red", ""),
    ]  # fmt: skip
    assert before == {path: path.read_bytes() for path in before}


def test_relabelling_a_test_photo_towards_the_models_answer_warns_that_it_flatters_the_score(run):
    opened, told = open_predictions(run), lambda: " ".join(confusions.matrix(opened)["said"])
    assert "own answer" not in correct(opened, [0], "relabel", "green") + told()  # the model said red
    assert "own answer" not in correct(opened, [3], "relabel", "blue tit") + told()
    undo(opened), undo(opened)
    said = correct(opened, [3], "relabel", "green")
    assert "The new label is the model's own answer" in said and "looks better than it is" in said
    assert "1 photo was relabelled to the model's own answer" in told()
    assert "Without this, 6 of 8 would be named right." in told()
    both = correct(opened, [0, 3], "relabel", "red") + correct(opened, [2, 3], "relabel", "green")
    assert "For 1 of them the new label is the model's own answer" in both
    undo(opened), undo(opened), undo(opened)
    assert "own answer" not in told() and counts(opened) == BEFORE


def test_a_photo_that_no_split_calls_a_test_photo_gets_a_label_without_a_warning(workspace):
    rows = [a_row(workspace, "n.jpg", "red", None, "red", 0.9)]  # as `classify` writes it: nobody knew the label
    write_predictions(predictions_table(rows, workspace, ["red"]), workspace / "n.parquet")
    opened = open_predictions(workspace / "n.parquet")
    assert "own answer" not in correct(opened, [0], "relabel", "red") + " ".join(confusions.matrix(opened)["said"])


def test_a_flag_changes_no_number_also_on_a_photo_that_was_relabelled(run):
    opened = open_predictions(run)
    correct(opened, [3], "relabel", "green")
    moved = counts(opened)
    correct(opened, [3], "flag")
    assert counts(opened) == moved and confusions.card(opened, 3)["action"] == "flag"
    for action in ("flag", "relabel"):
        assert confusions.photos_of_cell(opened, corrected=action) == [3]


def test_a_new_label_gets_a_row_and_a_column(run):
    opened = open_predictions(run)
    correct(opened, [0], "relabel", "  blue tit ")
    assert confusions.matrix(opened)["rows"] == ["red", "green", "blue tit"] == confusions.matrix(opened)["columns"][:3]
    assert counts(opened)[("blue tit", "red")] == 1


@pytest.mark.parametrize("given, words", [
    (([], "flag"), "choose a photo first"), (([0], "delete"), "is no correction"), (([0], "undo"), "is no correction"),
    (([0], "relabel", " "), "cannot be a label"), (([0], "relabel", "a|b"), "cannot be a label"),
    (([0], "relabel", "a\nb"), "cannot be a label"), (([0], "relabel", "not labelled"), "cannot be a label"),
    (([0, 1], "relabel", "red"), "labelled red already"),
])  # fmt: skip
def test_a_correction_that_means_nothing_is_refused_and_not_written(run, given, words):
    with pytest.raises(UserError, match=words):
        correct(open_predictions(run), *given)
    assert not corrections.file().exists()


def test_there_is_nothing_to_confirm_without_a_label_or_after_relabelling(run, workspace):
    opened = open_predictions(run)
    correct(opened, [0], "confirm")
    correct(opened, [3], "relabel", "green")
    with pytest.raises(UserError, match="nothing to confirm"):
        correct(opened, [3], "confirm")
    assert counts(opened)[("green", "green")] == 4
    rows = [a_row(workspace, "n.jpg", "red", None, "red", 0.9)]
    write_predictions(predictions_table(rows, workspace, ["red"]), workspace / "n.parquet")
    with pytest.raises(UserError, match="no label to confirm"):
        correct(open_predictions(workspace / "n.parquet"), [0], "confirm")


def test_undo_takes_back_all_that_was_done_at_once_and_then_what_was_before(run):
    opened = open_predictions(run)
    correct(opened, [3], "relabel", "green")
    correct(opened, [0, 1, 2], "exclude")
    assert undo(opened).startswith("Undone: 3 photos are no longer excluded") and counts(opened)[("red", "red")] == 3
    assert undo(opened).startswith("Undone: red3.jpg is no longer relabelled") and counts(opened) == BEFORE
    with pytest.raises(UserError, match="no correction to undo"):
        undo(opened)


def test_undo_goes_on_after_a_restart_and_leaves_other_tables_alone(run, workspace):
    correct(open_predictions(run), [3], "relabel", "green")
    correct(open_predictions(run), [3], "flag")
    other = [a_row(workspace, "other.jpg", "red", "red", "red", 0.9)]
    write_predictions(predictions_table(other, workspace, ["red"]), workspace / "other.parquet")
    correct(open_predictions(workspace / "other.parquet"), [0], "exclude")
    again = open_predictions(run)
    assert undo(again).startswith("Undone: red3.jpg is no longer flagged") and counts(again)[("green", "green")] == 4
    assert undo(open_predictions(run)).startswith("Undone: red3.jpg is no longer relabelled")
    with pytest.raises(UserError, match="no correction to undo"):
        undo(open_predictions(run))
    assert [row["action"] for row in corrections.in_force(corrections.read_corrections()).values()] == ["exclude"]


def test_undo_does_not_withdraw_what_another_window_said_since(run):
    mine, other = open_predictions(run), open_predictions(run)
    correct(mine, [0], "flag")
    correct(other, [0], "relabel", "green")
    undo(mine)  # the last word on that photo is the other window's, and it is the last correction made
    assert corrections.in_force(corrections.read_corrections())[mine.rows[0]["sha256"]]["action"] == "flag"
    refresh(other)
    assert counts(other) == BEFORE


def test_equal_photos_are_corrected_together(workspace):
    row = a_row(workspace, "a.jpg", "red", "red", "green", 0.9)
    (workspace / "copy.jpg").write_bytes((workspace / "a.jpg").read_bytes())
    table = predictions_table([row, {**row, "path": "copy.jpg"}], workspace, ["red", "green"])
    write_predictions(table, workspace / "a.parquet")
    opened = open_predictions(workspace / "a.parquet")
    correct(opened, [0, 1], "relabel", "green")
    assert len(corrections.read_corrections()) == 1 and counts(opened) == {("green", "green"): 2}


def test_a_thousand_classes_are_counted_as_they_are(workspace):
    labels = [f"species {k}" for k in range(1000)]
    said = {"status": "ok", "score": 0.5, "split": "test"}
    rows = [{"path": f"{k}.jpg", "label": labels[k % 40], "truth": labels[(k * 7) % 40], **said} for k in range(200)]
    write_predictions(predictions_table(rows, workspace, labels), workspace / "a.parquet")
    found = confusions.matrix(open_predictions(workspace / "a.parquet"))
    assert len(found["rows"]) == 40 and sum(n for *_, n in found["counts"]) == 200  # of those that occur


def test_a_real_run_of_ten_classes_is_the_matrix_of_its_report(trained, workspace):
    opened = open_predictions(trained)
    told = core.read_json(trained / "metrics.json")["test"]
    found = confusions.matrix(opened)
    mine = np.zeros((len(opened.labels), len(opened.labels)), int)
    for r, c, n in found["counts"]:
        if found["rows"][r] in opened.labels and found["columns"][c] in opened.labels:
            mine[opened.labels.index(found["rows"][r]), opened.labels.index(found["columns"][c])] = n
    assert mine.tolist() == [list(map(int, row)) for row in told["confusion"]]
