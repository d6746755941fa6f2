"""What corrections promise: what a person said of a photo is never lost, and it changes that photo in the next manifest
and nothing else."""

import itertools
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from species_wb.evaluate import evaluation, evaluation_text
from species_wb.photos import corrected, corrections
from species_wb.contracts import read_manifest, write_table
from species_wb.core import UserError, hidden
from species_wb.photos.findings import findings
from species_wb.photos.findings_text import sentences
from species_wb.photos.scan import scan

pytestmark = pytest.mark.usefixtures("workspace")
SHA = "0123456789abcdef" * 4


def picture(path: Path, seed: int) -> None:
    "A picture unlike every other seed's."
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(path)


def tree(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    "Folders of photos, all different."
    for folder, count in counts.items():
        for i in range(count):
            picture(root / folder / f"{i:02}.jpg", first := first + 1)
    return root


@pytest.fixture
def field(tmp_path) -> Path:
    "Three classes of twelve photos, and two photos in no class."
    return tree(tmp_path / "photos", {"Aves": 12, "Fungi": 12, "Mollusca": 12, ".": 2})


def rows(manifest) -> dict[str, dict]:
    return {row["path"]: row for row in manifest.to_pylist()}


def say(manifest, path: str, action: str, new_label: str = "") -> None:
    row = rows(manifest)[path]
    photo = {"sha256": row["sha256"], "path": path, "old_label": row["label"]}
    corrections.append([{**photo, "action": action, "new_label": new_label}])


def changed(before, after) -> dict[str, dict]:
    "Return the rows that differ, each with its new values; a column that is not there is null."
    old, new = rows(before), rows(after)
    assert list(old) == list(new)
    differ = {p: {k: v for k, v in new[p].items() if v != old[p].get(k)} for p in new}
    return {p: values for p, values in differ.items() if values}


def some(manifest, label: str | None, split: str | None) -> str:
    return next(p for p, row in rows(manifest).items() if (row["label"], row["split"]) == (label, split))


# --- one photo, and no other ---


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_correction_changes_the_row_of_its_photo_and_no_other(field, split):
    before = scan(field)
    path = some(before, "Aves", split)
    say(before, path, "relabel", "Fungi")
    was = {"label_before": "Aves", "split_before": split}
    assert changed(before, scan(field)) == {path: {"label": "Fungi", "corrected": "relabel", **was}}
    say(before, path, "exclude")
    found = changed(before, scan(field))
    assert "was excluded by hand" in found[path].pop("reason")
    assert found == {path: {"split": None, "code": "excluded", "corrected": "exclude", **was}}
    for action in ("flag", "confirm"):
        say(before, path, "undo")
        say(before, path, "undo")
        say(before, path, action)
        assert changed(before, scan(field)) == {path: {"corrected": action, **was}}


def test_what_is_undone_leaves_no_trace_in_the_manifest(field):
    before = scan(field)
    for path, action in ((some(before, "Aves", "test"), "exclude"), (some(before, None, None), "relabel")):
        say(before, path, action, "Fungi")
    assert len(changed(before, scan(field))) == 2
    for path in changed(before, scan(field)):
        say(before, path, "undo")
    assert scan(field).equals(before, check_metadata=True)
    kept = [row["action"] for row in corrections.read_corrections()]
    assert kept == ["exclude", "relabel", "undo", "undo"]


def test_photos_and_folders_are_never_written_to(field):
    def state():
        return {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in [field, *field.rglob("*")]}

    before, manifest = state(), scan(field)
    for path, action in zip(rows(manifest), ("relabel", "exclude", "flag", "confirm"), strict=False):
        say(manifest, path, action, "Fungi")
    scan(field)
    assert state() == before


def test_a_copy_of_a_photo_is_the_same_photo(field):
    (field / "Mollusca" / "copy.jpg").write_bytes((field / "Aves" / "03.jpg").read_bytes())
    before = scan(field)
    assert findings(before)["conflicts"]
    say(before, "Aves/03.jpg", "relabel", "Aves")
    after = scan(field)
    labels = {p: row["label_before"] for p, row in changed(before, after).items()}
    assert labels == {"Aves/03.jpg": "Aves", "Mollusca/copy.jpg": "Mollusca"}
    assert not findings(after)["conflicts"] and rows(after)["Mollusca/copy.jpg"]["label"] == "Aves"
    counts = findings(after)["corrections"]["all"]
    assert counts == {"relabel": 1, "exclude": 0, "flag": 0, "confirm": 1}  # the label of one of them was right


# --- splits ---


def test_a_test_photo_of_a_class_that_nothing_trains_is_not_scored(field):
    before = scan(field)
    paths = some(before, "Aves", "test"), some(before, "Aves", "valid")
    for path in paths:
        say(before, path, "relabel", "Reptilia")
    after = scan(field)
    for path in paths:
        row = rows(after)[path]
        said = f"{path} is of the class Reptilia, of which there is no photo to train with: not scored."
        assert row["split"] is None and row["reason"] == said
    assert findings(after)["unknown_classes"] == {"Reptilia": 2} and not findings(after)["leaks"]
    trained = some(before, "Fungi", "train")
    say(before, trained, "relabel", "Reptilia")  # now something trains it
    assert rows(scan(field))[paths[0]]["split"] == "test" and rows(scan(field))[paths[1]]["split"] == "valid"


def test_a_misspelt_test_folder_can_be_mended_by_hand(tmp_path):
    root = tree(tmp_path / "photos", {"train/Aves": 5, "train/Fungi": 5, "test/Aves": 2, "test/Fungy": 2})
    before = scan(root)
    assert rows(before)["test/Fungy/00.jpg"]["split"] is None
    say(before, "test/Fungy/00.jpg", "relabel", "Fungi")
    found = changed(before, scan(root))["test/Fungy/00.jpg"]
    assert (found["label"], found["split"], found["reason"], found["code"]) == ("Fungi", "test", None, None)


def test_what_can_be_scored_with_another_label_is_known_by_its_code_and_not_by_its_words(tmp_path, monkeypatch):
    root = tree(tmp_path / "photos", {"train/Aves": 5, "train/Fungi": 5, "test/Aves": 2, "test/Fungy": 2})
    numbers = itertools.count()

    def in_another_way(name: str, label: str) -> str:
        return f"{name} is not scored, said in way {next(numbers)}."

    monkeypatch.setattr(corrected, "not_scored", in_another_way)
    before = scan(root)
    say(before, "test/Fungy/00.jpg", "relabel", "Fungi")
    after = rows(scan(root))
    first, second = (after[f"test/Fungy/0{k}.jpg"] for k in range(2))
    assert (first["split"], first["code"]) == ("test", None)
    assert (second["split"], second["code"]) == (None, "not-scored")
    assert next(numbers) >= 4  # every photo of it was said in another way


def test_a_photo_labelled_by_hand_trains_unless_it_is_held_out(tmp_path):
    root = tree(tmp_path / "photos", {"train/Aves": 5, "train/Fungi": 5, "test/Aves": 2, "test": 2, "train": 2})
    before = scan(root)
    for path in ("train/00.jpg", "test/00.jpg"):
        say(before, path, "relabel", "Fungi")
    after = rows(scan(root))
    train, test = after["train/00.jpg"], after["test/00.jpg"]
    assert (train["label"], train["split"], train["reason"]) == ("Fungi", "train", None)
    assert (test["label"], test["split"]) == ("Fungi", None) and "given for test" in test["reason"]
    assert (train["code"], test["code"]) == (None, "held-out")
    assert set(changed(before, scan(root))) == {"train/00.jpg", "test/00.jpg"}


def test_a_photo_labelled_by_hand_beside_a_held_out_one_does_not_train(field):
    held = some(scan(field), "Aves", "test")
    Image.open(field / held).resize((120, 120)).save(field / "near.jpg")  # the same picture in other bytes
    before = scan(field)
    held = rows(before)["near.jpg"]["group"]
    near = {p: row["split"] for p, row in rows(before).items() if row["group"] == held and row["label"]}
    say(before, "near.jpg", "relabel", "Aves")
    row = rows(scan(field))["near.jpg"]
    assert set(near.values()) == {"test"} and row["split"] is None
    assert row["label"] == "Aves" and "left out of training" in row["reason"]
    assert [leak["path"] for leak in findings(scan(field))["leaks"]] == ["near.jpg"] and row["code"] == "leak"


def test_a_flag_changes_no_training_not_even_after_a_relabelling(field):
    before = scan(field)
    path = some(before, "Aves", "train")
    say(before, path, "relabel", "Fungi")
    relabelled = scan(field)
    say(before, path, "flag")
    assert scan(field).equals(relabelled)
    assert corrections.in_force(corrections.read_corrections())[rows(before)[path]["sha256"]]["action"] == "flag"
    say(before, path, "undo")  # of the flag
    assert scan(field).equals(relabelled)


def test_a_file_that_does_not_open_is_left_alone(field):
    (field / "Aves" / "note.jpg").write_text("no photo")
    before = scan(field)
    assert rows(before)["Aves/note.jpg"]["sha256"]
    say(before, "Aves/note.jpg", "relabel", "Fungi")
    assert scan(field).equals(before)


# --- where they are applied ---


def test_only_the_manifests_of_its_workspace_are_changed(field, workspace, tmp_path, monkeypatch):
    before = scan(field)
    say(before, some(before, "Aves", "train"), "exclude")
    assert corrections.file() == workspace / "corrections.csv" and corrections.file().exists()
    assert changed(before, scan(field))
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("SPECIES_WB_HOME", str(tmp_path / "other"))
    assert scan(field).equals(before)
    monkeypatch.setattr(corrections, "workspace", lambda: (_ for _ in ()).throw(UserError("No workspace found")))
    assert scan(field).equals(before)


def test_a_manifest_that_is_given_is_used_as_it_is(field, tmp_path):
    before = scan(field)
    write_table(before, tmp_path / "m.parquet")
    say(before, some(before, "Aves", "train"), "exclude")
    assert scan(tmp_path / "m.parquet").equals(before)


def test_columns_of_a_table_are_not_taken_for_corrections(field, tmp_path):
    (tmp_path / "more.csv").write_text("path,corrected,split_before\nAves/00.jpg,exclude,test\n")
    manifest = scan(field, tmp_path / "more.csv")
    assert rows(manifest)["Aves/00.jpg"]["corrected_given"] == "exclude" and "corrected" not in manifest.schema.names
    assert not any(findings(manifest)["corrections"]["all"].values())


def test_evaluating_on_any_folder_leaves_out_what_was_excluded(field):
    before = scan(field)
    out, other, seen = some(before, "Aves", "train"), some(before, "Aves", "valid"), some(before, "Aves", "test")
    mollusc = some(before, "Mollusca", "train")
    excluded, relabelled = (out, seen, mollusc), (other, "00.jpg")
    for path, action in [(path, "exclude") for path in excluded] + [(path, "relabel") for path in relabelled]:
        say(before, path, action, "Fungi")
    judged = evaluation.all_test(scan(field), [rows(before)[seen]["sha256"][:16]])
    got = rows(judged)
    assert [got[p]["split"] for p in (out, other, seen, "00.jpg", "01.jpg")] == [None, "test", None, "test", None]
    assert Counter(row["split"] for row in got.values()) == {"test": 34, None: 4}
    assert got[other]["label"] == got["00.jpg"]["label"] == "Fungi"
    counts = findings(judged)["corrections"]["test"]
    assert counts == {"relabel": 2, "exclude": 2, "flag": 0, "confirm": 0}  # the third was trained on
    assert "excluded by hand" in got[out]["reason"] and got[some(judged, "Mollusca", "test")]["split_before"] is None
    assert all((row["code"] is None) == (row["reason"] is None) for row in got.values())
    assert {row["code"] for row in got.values()} <= {None, "excluded", "unused"} and got[out]["code"] == "excluded"
    assert judged.schema.field("code").type == scan(field).schema.field("code").type


def test_evaluating_on_any_folder_leaves_a_persons_own_column_called_code_alone(field):
    earlier = scan(field).drop_columns("code")
    earlier = earlier.append_column("code", pa.array([f"B{k}" for k in range(len(earlier))]))
    assert evaluation.all_test(earlier, [])["code"].equals(earlier["code"])


# --- what is said ---


def test_findings_and_report_count_corrections_and_those_of_the_test_split_apart(field, tmp_path):
    for photo in (field / "Aves").glob("*.jpg"):
        Image.open(photo).resize((120, 120)).save(field / "Aves" / f"near-{photo.name}")
    before = scan(field)
    assert not any("hand" in sentence for sentence in sentences(findings(before)))
    say(before, some(before, "Aves", "test"), "exclude")  # one of a pair: leaving it out is no leak
    for path in (some(before, "Fungi", "train"), some(before, "Fungi", "valid")):
        say(before, path, "relabel", "Aves")
    by_hand = "Corrected by hand (the files themselves were not changed):"
    said = f"{by_hand} 2 photos relabelled, 1 photo excluded. In the test split: 1 photo excluded."
    assert said in sentences(findings(scan(field))) and not findings(scan(field))["leaks"]
    write_table(scan(field), tmp_path / "m.parquet")
    for path in rows(before):
        say(before, path, "undo")  # the report is of the manifest, whatever the table says by now
    found = findings(read_manifest(tmp_path / "m.parquet"))
    assert said in evaluation_text.data_sentences(found, SimpleNamespace(rows=[], left_out=[]))
    say(before, some(before, "Fungi", "train"), "flag")
    assert f"{by_hand} 1 photo flagged. In the test split: none of them." in sentences(findings(scan(field)))


# --- the table ---


def test_the_last_word_counts_and_undo_walks_back():
    def last(*actions, other=()):
        of_others = [{"sha256": "b" * 64, "action": a} for a in other]
        found = corrections.in_force([{"sha256": SHA, "action": a} for a in actions] + of_others)
        return found.get(SHA, {}).get("action")

    assert last("relabel", "exclude") == "exclude" and last("relabel", "confirm") == "confirm"
    assert last("exclude", "flag") == "flag"
    assert last("relabel", "exclude", "undo") == "relabel" and last("relabel", "exclude", "undo", "undo") is None
    assert last("undo", "relabel") == "relabel" and last("relabel", "undo", "undo", "flag") == "flag"
    assert last("relabel", other=["undo"]) == "relabel"


PRINTABLE = st.characters(blacklist_categories=("C", "Z"), blacklist_characters="|")
AWKWARD = ["-x", "'-x", "''=1", "'", "@", "'a", "＝1", "a, \"b\""]


@examples(60)
@given(st.lists(st.text(PRINTABLE, min_size=1, max_size=6) | st.sampled_from(AWKWARD), min_size=1, max_size=4))
def test_every_label_comes_back_as_it_was_and_no_spreadsheet_runs_it(labels):
    import unicodedata

    path = Path(tempfile.mkdtemp()) / "c.csv"
    word = {"sha256": SHA, "action": "relabel"}
    corrections.append([word | dict.fromkeys(("old_label", "new_label", "who"), label) for label in labels], path)
    found = [(row["old_label"], row["new_label"], row["who"]) for row in corrections.read_corrections(path)]
    assert found == [(a, unicodedata.normalize("NFC", a), a) for a in labels]
    cells = [cell for line in path.read_text().splitlines() for cell in line.replace('"', "").split(",")]
    assert not any(cell.startswith(("=", "+", "-", "@", "＝")) for cell in cells)


def test_who_and_when_are_filled_in_and_what_was_given_is_kept():
    given = {"sha256": SHA, "action": "flag", "who": "-ada", "when": "2026-05-04"}
    corrections.append([{"sha256": SHA.upper(), "path": "a.jpg", "action": "flag"}, given])
    one, two = corrections.read_corrections()
    assert tuple(one) == corrections.COLUMNS and one["sha256"] == SHA and one["when"][4] == "-" and "T" in one["when"]
    assert (two["who"], two["when"]) == ("-ada", "2026-05-04")


@pytest.mark.parametrize("wrong", [
    {"action": "delete"}, {"sha256": "0a"}, {"sha256": ""},
    {"new_label": ""}, {"new_label": "  "}, {"new_label": "a|b"}, {"new_label": "a\nb"}, {"new_label": "a\rb"},
])  # fmt: skip
def test_what_cannot_be_right_is_refused_and_nothing_of_it_kept(wrong):
    good = {"sha256": SHA, "path": "a.jpg", "action": "relabel", "new_label": "Aves"}
    with pytest.raises(UserError, match="a.jpg was not saved"):
        corrections.append([good, {**good, **wrong}])
    assert corrections.read_corrections() == []


@pytest.mark.parametrize("line, said", [
    (f"{SHA},a.jpg,delete,,,me,now", "line 4: the action 'delete' is none of"),
    ("0a,a.jpg,flag,,,me,now", "line 4: the sha256 '0a' is not 64"),
    (f"{SHA},a.jpg,relabel,Aves,,me,now", "line 4: the new label '' is empty"),
    (f"{SHA},a.jpg,flag", "line 4: it does not have 7 cells"),
    (f"{SHA},a.jpg,flag,,,me,now,more", "line 4: it does not have 7 cells"),
    (b"\xff\xfe", "line 4 on"),
])  # fmt: skip
def test_a_damaged_table_is_one_sentence_that_names_the_line_and_stops_the_scan(field, line, said):
    corrections.append([{"sha256": SHA, "path": "two\nlines.jpg", "action": "flag"}])  # lines 2 and 3
    with corrections.file().open("ab") as table:
        table.write((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
    for reading in (corrections.read_corrections, lambda: scan(field)):
        with pytest.raises(UserError, match=said) as caught:
            reading()
        assert str(corrections.file()) in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_of_others_is_neither_read_nor_written_into(workspace):
    (workspace / "corrections.csv").write_text("photo;word\na.jpg;flag\n")
    with pytest.raises(UserError, match="line 1: its columns are photo;word"):
        corrections.read_corrections()
    with pytest.raises(UserError, match="another table"):
        corrections.append([{"sha256": SHA, "action": "flag"}])
    assert (workspace / "corrections.csv").read_text() == "photo;word\na.jpg;flag\n"


def test_a_torn_line_is_left_out_and_mended():
    corrections.append([{"sha256": SHA, "action": "flag", "who": "é"}])
    whole = corrections.file().read_bytes()
    corrections.file().write_bytes(whole + f"{SHA},a.jpg,relabel,,Pézi".encode()[:-3])
    assert len(corrections.read_corrections()) == 1
    corrections.append([{"sha256": SHA, "action": "undo"}])
    assert [row["action"] for row in corrections.read_corrections()] == ["flag", "undo"]


def test_processes_that_append_at_once_lose_nothing():
    code = (
        "import sys; from species_wb.photos.corrections import append\n"
        "for n in range(12):\n"
        "    word = {'sha256': f'{int(sys.argv[1]) * 100 + n:064x}', 'path': 'a.jpg', 'action': 'relabel'}\n"
        "    append([{**word, 'new_label': f'{n} {k}'} for k in range(150)])"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(k)], stderr=subprocess.PIPE) for k in range(3)]
    assert [(worker.communicate()[1].decode()[-500:], worker.returncode) for worker in workers] == [("", 0)] * 3
    got = [(row["sha256"], row["new_label"]) for row in corrections.read_corrections()]
    every = itertools.product(range(3), range(12), range(150))
    assert Counter(got) == Counter((f"{w * 100 + n:064x}", f"{n} {k}") for w, n, k in every)
    together = [{sha for sha, _ in got[i : i + 150]} for i in range(0, len(got), 150)]
    assert all(len(shas) == 1 for shas in together)  # the rows of one call are not mixed with those of others


def test_who_cannot_write_is_told_why(workspace, monkeypatch):
    monkeypatch.setattr(corrections, "PATIENCE", 0.1)
    row = {"sha256": SHA, "action": "flag"}
    lock = FileLock(workspace / f"{hidden(corrections.file())}.lock")
    with lock, pytest.raises(UserError, match="held by another process"):
        corrections.append([row])
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(UserError, match="Input/output error"):
        corrections.append([row])
    (workspace / "folder" / "corrections.csv").mkdir(parents=True)
    for doing in (lambda path: corrections.append([row], path), corrections.read_corrections):
        with pytest.raises(UserError, match="cannot be"):
            doing(workspace / "folder" / "corrections.csv")


def test_a_correction_made_in_the_explorer_changes_the_next_manifest_and_only_that(workspace, survey, trained):
    pytest.importorskip("anywidget")
    from species_wb.apps.explorer import Explorer

    stamps = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in survey.rglob("*")}
    before = {row["path"]: row for row in scan(survey).to_pylist()}
    explorer = Explorer(trained)
    which = next(k for k, row in enumerate(explorer.review.rows) if row["truth"])
    path, label = (explorer.review.rows[which][key] for key in ("path", "truth"))
    other = next(name for name in explorer.review.labels if name != label)
    explorer.grid.photo = which
    assert f"relabelled to {other}" in explorer.correct("relabel", other)
    after = {row["path"]: row for row in scan(survey).to_pylist()}
    assert list(after) == list(before)
    different = {p: {k for k in after[p] if after[p][k] != before[p].get(k)} for p in after}
    assert {p: keys for p, keys in different.items() if keys} == {path: {"label", *corrected.ADDED}}
    assert after[path]["label"] == other and before[path]["label"] == label
    explorer.corrections.undo.click()
    assert {row["path"]: row for row in scan(survey).to_pylist()} == before
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in survey.rglob("*")} == stamps
    explorer.close()
