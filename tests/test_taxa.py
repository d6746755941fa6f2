"""The table from ImageNet to taxa is whole and agrees with WordNet's tree.

Labels find their classes and never share one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from species_wb.taxa import CLASSES, COMMON, imagenet, members

ROOTS = {  # taxon → WordNet 3.0 synsets whose descendants it holds, by offset and first word
    "Amphibia": [("01627424", "amphibian")],
    "Arachnida": [("01769347", "arachnid")],
    "Aves": [("01503061", "bird")],
    "Fungi": [("12992868", "fungus")],
    "Insecta": [("02159955", "insect")],
    "Mammalia": [("01861778", "mammal")],
    "Mollusca": [("01940736", "mollusk")],
    "Plantae": [("00017222", "plant"), ("13086908", "plant_part"), ("07707451", "vegetable")],
    "Reptilia": [("01661091", "reptile")],
    "Animalia": [("00015388", "animal")],  # last: what no other root holds
}
ALIVE = [("00004475", "organism"), ("13086908", "plant_part"), ("00021265", "food"), ("07555863", "food")]
BY_HAND = {
    "n07734744": "Fungi", "n07711569": "", "n04275548": "Arachnida", "n03530642": "Insecta", "n09256479": "Animalia",
    "n03991062": "Plantae",
}  # fmt: skip
PEOPLE = ("00007846", "person")


@pytest.fixture(scope="module")
def nouns(wordnet) -> dict[str, tuple[list[str], list[str]]]:
    "WordNet's nouns: offset → words, hypernyms' offsets (its format is described in wndb(5WN))."
    nouns = {}
    for line in wordnet.read_text(encoding="latin-1").splitlines():
        if not line.startswith("  "):  # the licence
            offset, _, _, count, *rest = line.split(" | ")[0].split()
            words, pointers = rest[: 2 * int(count, 16) : 2], rest[2 * int(count, 16) + 1 :]
            above = [to for kind, to in zip(pointers[::4], pointers[1::4], strict=False) if kind in ("@", "@i")]
            nouns[offset] = words, above
    for offset, word in [root for roots in ROOTS.values() for root in roots] + [*ALIVE, PEOPLE]:
        assert word in nouns[offset][0]
    return nouns


def above(nouns: dict, synset: str) -> set[str]:
    "A synset and everything over it."
    found, todo = set(), [synset.removeprefix("n")]
    while todo:
        if (offset := todo.pop()) not in found:
            found.add(offset)
            todo += nouns[offset][1]
    return found


def test_the_table_is_whole_and_in_imagenets_order():
    timm = pytest.importorskip("timm.data")
    info = timm.ImageNetInfo("imagenet-1k")
    assert [entry.index for entry in imagenet()] == list(range(1000))
    synsets, words = zip(*((entry.synset, ", ".join(entry.words)) for entry in imagenet()), strict=True)
    assert list(synsets) == info.label_names() and len(set(synsets)) == 1000
    assert list(words) == [info.index_to_description(index) for index in range(1000)]


def test_every_taxon_is_one_of_the_ten_and_each_has_classes():
    assert {entry.taxon for entry in imagenet()} == {*CLASSES, ""}
    assert tuple(sorted(CLASSES)) == CLASSES and tuple(COMMON) == CLASSES  # the data set's ids are alphabetical
    for entry in imagenet():
        assert entry.reason == "" or (entry.reason.endswith(".") and entry.reason == entry.reason.strip()), entry


def test_words_and_offsets_are_wordnets(nouns):
    for entry in imagenet():
        assert list(entry.words) == [word.replace("_", " ") for word in nouns[entry.synset[1:]][0]]


def test_each_taxon_agrees_with_wordnets_tree(nouns):
    differ = {}
    for entry in imagenet():
        over = above(nouns, entry.synset)
        expected = next((taxon for taxon, roots in ROOTS.items() if over & {offset for offset, _ in roots}), "")
        if entry.taxon != expected:
            differ[entry.synset] = entry.taxon
    assert differ == BY_HAND


def test_what_lives_or_is_eaten_has_a_taxon_or_a_reason(nouns):
    for entry in imagenet():
        if above(nouns, entry.synset) & {offset for offset, _ in ALIVE}:
            assert entry.taxon or entry.reason, entry
        if PEOPLE[0] in above(nouns, entry.synset):
            assert entry.taxon == "" and entry.reason, entry


def test_what_is_not_obvious_has_a_reason(nouns):
    roots = [root for taxon, of_taxon in ROOTS.items() if taxon != "Animalia" for root in of_taxon]
    obvious = {offset for offset, word in roots if word not in ("plant_part", "vegetable")}
    for entry in imagenet():
        if entry.taxon and not above(nouns, entry.synset) & obvious:
            assert entry.reason, entry
    for synset in BY_HAND:
        assert next(entry for entry in imagenet() if entry.synset == synset).reason


def test_objects_counted_as_organisms_are_photographed_with_them():
    timm = pytest.importorskip("timm.data")
    photos = json.loads((Path(timm.__file__).parent / "_info" / "imagenet_real_labels.json").read_text())
    counts = {}
    for index in (599, 815, 973):
        others = [{imagenet()[k].taxon for k in labels if k != index} for labels in photos if index in labels]
        counts[index] = sum(imagenet()[index].taxon in taxa for taxa in others), len(others)
    assert counts == {599: (17, 46), 815: (30, 71), 973: (23, 72)}  # as the notebook says


@pytest.mark.parametrize("taxon", CLASSES)
def test_a_taxon_goes_by_its_common_names(taxon):
    expected = members([taxon])
    assert expected[0]
    for name in COMMON[taxon]:
        for written in (name, name.upper(), "fungi" if name == "fungus" else name + "s"):
            assert members([written]) == expected, written


def test_every_organism_is_found_by_each_of_its_words_and_its_synset():
    for entry in imagenet():
        assert members([entry.synset]) == [[entry.index]]
        for word in entry.words:
            for written in (word, word.replace(" ", "_"), word.title()):
                found = members([written])[0]
                assert entry.index in found if entry.taxon else entry.index not in found


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("Red_Fox", 277), ("vulpes vulpes", 277), ("red-foxes", 277), ("Ladybugs", 301), ("dragonflies", 319),
        ("Shih Tzu", 155), ("yellow_ladys_slipper", 986), ("mantis", 315),
    ],
)
def test_names_are_read_as_people_write_them(label, index):
    assert members([label]) == [[index]]


@pytest.mark.parametrize("label", ["", " _", "Lepus timidus", "mouse", "pitcher", "person", "guacamole", "s", "es"])
def test_what_imagenet_knows_nothing_of_has_no_classes(label):
    assert members([label]) == [[]]


@pytest.mark.parametrize(
    "labels",
    [
        list(CLASSES),
        [*CLASSES, "red fox", "hen", "Sus scrofa", "wild boar"],
        ["Animalia", "Plantae", "Fungi"],
        ["animal", "bird", "jay"],
        ["panther", "jaguar", "mammals"],
        ["puma", "cougar", "mammals"],
        ["n02119022", "red fox", "teapot"],
        [],
    ],
    ids=lambda labels: "+".join(labels[-3:]) or "none",
)
def test_no_class_counts_for_two_labels(labels):
    found = members(labels)
    assert len(found) == len(labels) and all(m == sorted(m) for m in found)
    assert len({index for m in found for index in m}) == sum(map(len, found))


def test_the_most_specific_label_takes_a_class():
    birds, jay, animals = members(["birds", "jay", "Animalia"])
    assert jay == [17] and 17 not in birds and not set(birds) & set(animals)
    assert {imagenet()[k].taxon for k in animals} == set(CLASSES) - {"Aves", "Fungi", "Plantae"}
    assert members(["panther", "jaguar"]) == [[286], [290]]
    cats = members(["puma", "cougar", "mammals"])
    assert cats[:2] == [[], []]
    assert 286 not in cats[2]  # the two that cannot be told apart still take it from the general one


def test_the_table_and_its_licence_are_packaged(tmp_path):
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    command += ["build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, check=True, capture_output=True)
    packaged = {path.name for path in (tmp_path / "species_wb" / "data").iterdir()}
    assert packaged >= {"imagenet_taxa.csv", "WORDNET-LICENSE.txt"}
