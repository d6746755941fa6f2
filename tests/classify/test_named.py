"""Finer names in tables and on the screen: a taxonomy beside the model or in its file, and a list of the region's taxa that changes nothing silently."""

import numpy as np
import pytest
from test_job import card, coloured, rows, typed

from species_wb.contracts import read_table
from species_wb.engine import toy
from species_wb.engine.model_file import open_models
from species_wb.engine.predict import predict_one
from species_wb.roll_up import names_info, of_names
from species_wb.taxonomy import Taxon, taxonomy_of

pytestmark = pytest.mark.usefixtures("own_cache")

TAXA = "label,scientific,rank,parent,common_eng\nAves,Aves,class,,birds\nTurdus,Turdus,genus,Aves,thrushes\n"
TREE = TAXA + "red,Turdus merula,species,Turdus,blackbird\ngreen,Turdus pilaris,species,Turdus,fieldfare\n"


@pytest.fixture
def unsure(tmp_path):
    "A model that is hardly sure whether a photo is red or green."
    return toy.write_toy(tmp_path / "unsure.onnx", temperature=8)


def named_model(path, temperature=2.0, labels=("Aves", "Fungi")):
    "A model of two classes that knows two birds below Aves: red photos show the first."
    tree = taxonomy_of([
        Taxon("Aves", "Aves", "class"), Taxon("Turdus", "Turdus", "genus", "Aves", "thrushes"),
        Taxon("merula", "Turdus merula", "species", "Turdus", "blackbird"), Taxon("pica", "Pica pica", "species", "Aves", "magpie"),
    ])  # fmt: skip
    roll_up = of_names(tree, labels, ["merula", "pica"], [0, 0], temperature)
    return toy.add_names(toy.write_toy(path, labels, names=names_info(roll_up)), ((2, -2), (0, 0), (0, 0)))


def test_a_taxonomy_beside_a_model_answers_the_genus_where_the_species_is_not_sure(tmp_path, unsure):
    (tmp_path / "taxa.csv").write_text(TREE)
    card(tmp_path / "card", 6)
    done = typed("classify", tmp_path / "card", "--model", unsure, "--taxonomy", tmp_path / "taxa.csv", "--out", tmp_path / "a.csv")
    assert done.returncode == 0, done.stderr
    for row in rows(tmp_path / "a.csv"):
        assert row["label"] in ("red", "green") and float(row["score"]) < 0.8
        assert (row["taxon"], row["taxon_rank"], row["taxon_common"]) == ("Turdus", "genus", "thrushes")
        assert float(row["taxon_score"]) == 1.0
    assert "red → thrushes (Turdus)" in done.stdout and "6 photos got a name below class level (6 as genus)." in done.stdout
    one = typed("classify", tmp_path / "card" / "100MEDIA" / "IMG_00001.JPG", "--model", unsure, "--taxonomy", tmp_path / "taxa.csv")
    assert "red → thrushes (Turdus), genus: 100.0%" in one.stdout
    again = typed("classify", tmp_path / "card", "--model", unsure, "--out", tmp_path / "a.csv")  # the answers are kept
    assert again.returncode == 0 and "taxon" not in rows(tmp_path / "a.csv")[0] and "class level" not in again.stdout


def test_a_model_file_with_finer_names_names_the_photo_below_its_label(tmp_path):
    model = named_model(tmp_path / "m.onnx")
    card(tmp_path / "card", 6)
    done = typed("classify", tmp_path / "card", "--model", model, "--out", tmp_path / "a.parquet")
    assert done.returncode == 0 and "Aves · birds → blackbird (Turdus merula)" in done.stdout, done
    table = read_table(tmp_path / "a.parquet")
    assert "names" not in table.schema.names  # only the answer, not the numbers that it was made from
    for row in table.to_pylist():
        if row["label"] == "Aves":
            assert row["taxon"] == "Turdus merula" and row["taxon_score"] <= row["score"]
        else:
            assert row["taxon"] is None  # no name is known below Fungi
    above = typed("classify", tmp_path / "card", "--model", model, "--min-score", 1, "--out", tmp_path / "b.parquet")
    open_rows = [row for row in read_table(tmp_path / "b.parquet").to_pylist() if row["label"] is None]
    assert above.returncode == 0 and open_rows and all(row["taxon"] is None and row["taxon_score"] is None for row in open_rows)


def test_a_mix_names_what_its_members_name(tmp_path):
    mix = open_models([named_model(tmp_path / "a.onnx"), named_model(tmp_path / "b.onnx", 9.0)], 1)
    photo = coloured("red")
    scores = [predict_one(model, photo)["names"] for model in mix.members]
    p = [1 / (1 + np.exp(-(own[0] - own[1]) / t)) for own, t in zip(scores, (2, 9), strict=True)]
    row = predict_one(mix, photo)
    chances = np.exp(row["names"])
    assert chances[0] / chances.sum() == pytest.approx(np.mean(p), abs=1e-3) and row["taxon"] == "Turdus merula"


def test_a_list_leaves_the_answer_without_it_in_the_row(tmp_path, unsure):
    (tmp_path / "taxa.csv").write_text(TREE)
    (tmp_path / "list.csv").write_text("taxon,site\nTurdus merula,garden\nGrus grus,garden\n")
    for place in ("garden", "wood"):
        (tmp_path / "card" / place).mkdir(parents=True)
        (tmp_path / "card" / place / "green.jpg").write_bytes(coloured("green"))
    words = ["classify", tmp_path / "card", "--model", unsure, "--taxonomy", tmp_path / "taxa.csv", "--site", "{folder1}"]
    assert typed(*words, "--out", tmp_path / "a.csv").returncode == 0
    without = {row["path"]: row for row in rows(tmp_path / "a.csv")}
    done = typed(*words, "--list", tmp_path / "list.csv", "--out", tmp_path / "b.csv")
    assert done.returncode == 0, done.stderr
    inside, outside = sorted(rows(tmp_path / "b.csv"), key=lambda row: row["site"])
    before = without["wood/green.jpg"]
    assert inside["label"] == "red" and inside["rule"] == "list list.csv" and float(inside["score"]) > 0.9
    assert (inside["label_raw"], inside["score_raw"]) == (before["label"], before["score"]) and before["label"] == "green"
    assert inside["taxon"] == "Turdus merula" and inside["taxon_raw"] == "Turdus" and inside["top"].startswith("red:")
    assert (outside["label"], outside["score"], outside["rule"]) == ("green", before["score"], "")
    assert "list.csv weighed 1 answer and gave 1 row another name" in done.stdout and "left out: Grus grus." in done.stdout
    stricter = typed(*words, "--list", tmp_path / "list.csv", "--min-score", "0.999", "--out", tmp_path / "b.csv")
    assert stricter.returncode == 0
    inside = next(row for row in rows(tmp_path / "b.csv") if row["site"] == "garden")
    assert inside["rule"] == "list list.csv; min-score 0.999" and inside["label_raw"] == "green" and not inside["label"]


def test_a_list_for_nowhere_is_one_sentence_and_changes_nothing(tmp_path, unsure):
    (tmp_path / "taxa.csv").write_text(TREE)
    (tmp_path / "list.csv").write_text("taxon,lat_min,lat_max\nTurdus merula,-80,-79\n")
    card(tmp_path / "card", 3)
    words = ["classify", tmp_path / "card", "--model", unsure, "--taxonomy", tmp_path / "taxa.csv"]
    assert typed(*words, "--out", tmp_path / "a.csv").returncode == 0
    done = typed(*words, "--list", tmp_path / "list.csv", "--out", tmp_path / "b.csv")
    said = [line for line in done.stdout.splitlines() if "list.csv" in line]
    assert len(said) == 1 and said[0].startswith("list.csv changed nothing, because no row of it fits")
    assert rows(tmp_path / "a.csv") == rows(tmp_path / "b.csv")


def test_months_decide_where_a_photo_has_a_time(tmp_path, unsure):
    from species_wb.regional_list import month_of, read_list, taxa_at

    (tmp_path / "list.csv").write_text("taxon;months;lon_min;lon_max\nApus apus;5-8;;\nCygnus cygnus;11-3;170;-170\n")
    swift = read_list(tmp_path / "list.csv")
    assert taxa_at(swift, None, 10, 175, month_of("2024-07-01T10:00")) == {"Apus apus"}
    assert taxa_at(swift, None, 10, -175, month_of("2024-01-01T10:00")) == {"Cygnus cygnus"}
    assert taxa_at(swift, None, 10, 0, month_of("2024-01-01T10:00")) == frozenset()
    assert taxa_at(swift, None, 10, 175) == {"Apus apus", "Cygnus cygnus"}


@pytest.mark.parametrize("words, said", [
    (("--taxonomy", "circle.csv"), "goes in a circle"), (("--taxonomy", "none.csv"), "cannot be read as a taxonomy"),
    (("--taxonomy", "other.csv"), "has none of the model's labels"), (("--list", "list.csv"), "this model has no taxonomy"),
    (("--taxonomy", "taxa.csv", "--list", "month.csv"), "13 is not a month"),
])  # fmt: skip
def test_wrong_files_are_one_sentence_before_a_photo_is_read(tmp_path, model, words, said):
    for name, text in (("circle", "label,parent\nred,green\ngreen,red\n"), ("other", "label,parent\noak,\n"), ("taxa", TREE),
                       ("list", "taxon\nTurdus\n"), ("month", "taxon,months\nTurdus,13\n")):  # fmt: skip
        (tmp_path / f"{name}.csv").write_text(text)
    card(tmp_path / "card", 2)
    done = typed("classify", "card", "--model", model, *words, "--out", "a.csv", cwd=tmp_path)
    assert done.returncode == 1 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done
    assert not (tmp_path / "a.csv").exists()


def test_a_file_whose_names_do_not_fit_is_refused(tmp_path):
    import onnx

    path = named_model(tmp_path / "m.onnx")
    network = onnx.load(path)
    network.graph.output.pop()
    onnx.save(network, tmp_path / "less.onnx")
    done = typed("classify", tmp_path, "--model", tmp_path / "less.onnx", "--out", tmp_path / "a.csv")
    assert done.returncode == 1 and "has 2 finer names and does not return a number for each" in done.stderr
