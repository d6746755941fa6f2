"""The taxonomy of the package is whole and checked; a broken one of a person is refused in one sentence; probabilities add up."""

import re

import numpy as np
import pytest
from conftest import examples
from hypothesis import given
from hypothesis import strategies as some

from species_wb.core import UserError
from species_wb.roll_up import from_info, leaf_chances, names_info, node_chances, of_labels, of_names, taxon_rows
from species_wb.taxa import CLASSES, imagenet
from species_wb.taxonomy import Taxon, imagenet_taxonomy, lineage, read_taxonomy, taxonomy_of, unknown_said

RANKS = "kingdom phylum class order suborder family genus species".split()


def test_every_living_class_of_imagenet_is_a_leaf_below_its_taxon():
    tree = imagenet_taxonomy()
    parents = {node.parent for node in tree.nodes.values()}
    for entry in (entry for entry in imagenet() if entry.taxon):
        assert entry.synset in tree.nodes and entry.synset not in parents, entry
        assert entry.taxon in lineage(tree, entry.synset), entry
    synsets = [label for label in tree.nodes if re.fullmatch(r"n\d{8}", label)]
    assert {*synsets} == {entry.synset for entry in imagenet() if entry.taxon}
    assert {*tree.nodes} - {*synsets} == parents - {""}  # no node above is there for nothing


def test_ranks_descend_and_no_name_stands_twice():
    tree = imagenet_taxonomy()
    for label, node in tree.nodes.items():
        above = [tree.nodes[one].rank for one in lineage(tree, label)][::-1]
        assert [RANKS.index(rank) for rank in above[:-1]] == sorted(RANKS.index(rank) for rank in above[:-1]), label
        assert not node.scientific or node.rank in RANKS, label
        if node.rank == "species":
            assert re.fullmatch("[A-Z][a-z]+ [a-z]+", node.scientific), label
        if node.rank in RANKS and node.parent:
            assert RANKS.index(node.rank) > RANKS.index(tree.nodes[node.parent].rank), label
    for names in ([n.scientific for n in tree.nodes.values() if n.scientific], [n.name for n in tree.nodes.values()]):
        assert len(names) == len({*names}), [name for name in names if names.count(name) > 1]


def test_what_is_said_to_be_wordnets_is(wordnet):
    words = set()
    for line in wordnet.read_text(encoding="latin-1").splitlines():
        if not line.startswith("  "):
            _, _, _, count, *rest = line.split(" | ")[0].split()
            words |= {word.replace("_", " ").split(" ", 1)[-1] for word in rest[: 2 * int(count, 16) : 2]}
            words |= {word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2]}
    from importlib.resources import files

    table = (files("species_wb") / "data" / "imagenet_taxonomy.csv").read_text().splitlines()
    rows = [line.split(",") for line in table[1:] if line.endswith(",wordnet")]
    assert len(rows) > 400
    assert [row for row in rows if row[1] and row[1] not in words and row[1].lower() not in words] == []


BROKEN = {
    "a circle": ("label,parent\na,b\nb,c\nc,a\n", "goes in a circle (a → b → c → a)"),
    "itself": ("label,parent\na,a\n", "goes in a circle (a → a)"),
    "no parent": ("label,parent\nLynx lynx,Lynx\n", "Lynx lynx has the parent Lynx, which has no row"),
    "two parents": ("label,parent\nFelidae,\nCanidae,\nLynx,Felidae\nLynx,Canidae\n", "names Lynx twice, below Felidae"),
    "twice": ("label,parent\nFelidae,\nFelidae,\n", "names Felidae twice"),
    "no labels": ("name,parent\na,\n", "it has no column label"),
    "nothing": ("label,parent\n", "has 0 rows"),
    "a bar": ("label,parent\na|b,\n", "holds '|'"),
    "deep": ("label,parent\n" + "".join(f"{k},{k - 1 if k else ''}\n" for k in range(5000)), "more than 100 levels"),
    "no text": (b"\xff\xfe\x00label", "cannot be read as a taxonomy"),
    "no name": ("label,parent\n,a\n", "a name that is empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_taxonomy_is_one_sentence(tmp_path, what):
    text, said = BROKEN[what]
    path = tmp_path / "taxa.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as wrong:
        read_taxonomy(path)
    assert said in str(wrong.value) and "\n" not in str(wrong.value) and str(wrong.value).endswith((".", "'"))
    assert len(str(wrong.value)) < 400


def test_labels_that_are_not_in_it_are_named(tmp_path):
    tree = taxonomy_of([Taxon("Felidae"), Taxon("Lynx", parent="Felidae")])
    assert "does not have cat, dog: such answers stay" in unknown_said(tree, ["Lynx", "cat", "dog"])
    assert "and 15 more" in unknown_said(tree, ["Lynx", *map(str, range(20))])
    with pytest.raises(UserError, match="has none of the model's labels"):
        unknown_said(tree, ["cat"])


@some.composite
def models(draw):
    "A random tree, labels and probabilities."
    size = draw(some.integers(2, 30))
    parents = [draw(some.integers(-1, k - 1)) for k in range(size)]
    tree = taxonomy_of(Taxon(f"t{k}", parent="" if p < 0 else f"t{p}") for k, p in enumerate(parents))
    labels = draw(some.lists(some.sampled_from([*tree.nodes, "x", "y"]), min_size=1, max_size=12, unique=True))
    p = np.array(draw(some.lists(some.floats(0.001, 1), min_size=len(labels), max_size=len(labels))))
    return tree, labels, p / p.sum()


@given(models())
@examples(60)
def test_the_answer_is_the_deepest_sure_name_that_agrees_with_the_label(model):
    tree, labels, p = model
    below = {node: sum(q for label, q in zip(labels, p, strict=True) if label in tree.nodes and node in lineage(tree, label))
             for node in tree.nodes}  # fmt: skip
    (row,) = taxon_rows(of_labels(tree, labels, 0.6), p[None])
    best = labels[int(p.argmax())]
    wanted = [node for node in (lineage(tree, best) if best in tree.nodes else []) if below[node] >= 0.6]
    if wanted and abs(below[wanted[0]] - 0.6) > 1e-9:
        assert row["taxon"] == wanted[0] and row["taxon_score"] == pytest.approx(below[wanted[0]], abs=1e-5)
    if not wanted:
        assert row["taxon"] is None


def test_names_below_a_label_share_its_probability_and_never_contradict_it():
    tree, rng = imagenet_taxonomy(), np.random.default_rng(3)
    living = [entry for entry in imagenet() if entry.taxon]
    roll_up = of_names(tree, [*CLASSES, "none"], [e.synset for e in living], [CLASSES.index(e.taxon) for e in living], 1.3)
    chances = rng.dirichlet(np.full(11, 0.2), 60)
    names = rng.normal(0, 4, (60, len(living)))
    leaf = leaf_chances(roll_up, chances, names)
    for k in range(10):
        assert np.allclose(leaf[:, roll_up.of == k].sum(1), chances[:, k])
    sums = node_chances(roll_up, leaf)
    assert np.allclose(sums[:, roll_up.nodes.index("Aves")], chances[:, CLASSES.index("Aves")])
    named = {node.name: label for label, node in tree.nodes.items()}
    for row, own in zip(taxon_rows(roll_up, chances, names), chances, strict=True):
        best = int(own.argmax())
        if row["taxon"] and CLASSES[best] != "Animalia":
            assert CLASSES[best] in lineage(tree, named[row["taxon"]]) and row["taxon_score"] <= own[best] + 1e-6
        assert row["taxon"] or best == 10 or own[best] < 0.8 or CLASSES[best] == "Animalia"
        assert tree.nodes[named[row["taxon"]]].rank not in ("sign", "any") if row["taxon"] else True
    again = from_info(names_info(roll_up), [*CLASSES, "none"])
    assert taxon_rows(again, chances, names) == taxon_rows(roll_up, chances, names)
