"""Write species_wb/data/imagenet_taxonomy.csv, the tree of ImageNet's living classes, and say where it differs from WordNet.

    python benchmarks/taxonomy.py [WORDNET]

WORDNET is WordNet 3.0's data.noun (Debian's package wordnet-base puts it at /usr/share/wordnet/data.noun).
The tree stands in imagenet_taxonomy.txt, a line a node, indented by a blank a level: `name; rank; English name` for a taxon, and `=first word of the class; rank; scientific name; English name` for a class of
ImageNet; what is left out is taken from the class's first word. `=*` stands for all classes between two synsets. It was made from WordNet's taxa (the member holonyms of each synset) and corrected by hand:
WordNet's genera and orders are often older than today's (Falconiformes for eagles, Carpodacus for the house finch), some names are misspelt (Holocanthus), and "bulbul" is a nightingale there. Where ImageNet's photos
of a class show more than the species that WordNet names (goldfinch, rock python, black-footed ferret), the class stands for the genus, or for a group without a scientific name. Nothing else was invented:
a class without a name that is certain has none. The rank any marks a class that shows nearly anything of its parent (among the photos of shared/photos/train that it is given, toads are tailed frogs and sunflowers daisies):
it counts, but the parent is the answer; likewise sign, for a web or a flowerpot. `source` is wordnet where WordNet knows the name and places it below the same parent or below the next taxon above that both know; else it is hand.
"""

import csv
import re
import sys
from collections import Counter
from pathlib import Path

from species_wb.taxa import imagenet

HERE = Path(__file__).resolve().parent
TREE, OUT = HERE / "imagenet_taxonomy.txt", HERE.parent / "species_wb" / "data" / "imagenet_taxonomy.csv"
COLUMNS = ("label", "scientific", "rank", "parent", "common_eng", "source")
Nouns = dict[str, tuple[list[str], list[tuple[str, str]]]]  # offset → words, pointers (kind, offset)


def nouns(path: Path) -> Nouns:
    "WordNet's nouns; its format is described in wndb(5WN)."
    found: Nouns = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if not line.startswith("  "):  # the licence
            offset, _, _, count, *rest = line.split(" | ")[0].split()
            words, pointers = rest[: 2 * int(count, 16) : 2], rest[2 * int(count, 16) + 1 :]
            found[offset] = [w.replace("_", " ") for w in words], list(zip(pointers[::4], pointers[1::4], strict=False))
    return found


def above(known: Nouns, offset: str) -> list[list[str]]:
    "The words of all taxa that WordNet puts a synset in: its member holonyms, or those of its hypernyms."
    found, todo, seen = [], [offset], set()
    while todo:
        at = todo.pop()
        if at in known and at not in seen:
            seen.add(at)
            todo += [to for kind, to in known[at][1] if kind in ("@", "@i", "#m")]
            found.append(known[at][0])
    return found


def names_of(words: list[str]) -> set[str]:
    "The words of a synset, also without `genus`, `family` and the like."
    return {re.sub("^(genus|family|order|class|phylum|kingdom|suborder) ", "", word).casefold() for word in words}


def rows() -> list[dict[str, str]]:
    "Read the tree."
    classes = {entry.words[0]: entry for entry in imagenet() if entry.taxon}
    found: list[dict[str, str]] = []
    parents: list[str] = []
    for line in TREE.read_text(encoding="utf-8").splitlines():
        depth = len(line) - len(line.lstrip(" "))
        name, rank, *rest = [part.strip() for part in line.split(";")]
        parents, parent = parents[:depth], parents[depth - 1] if depth else ""
        if name.startswith("=*"):
            first, last = name[2:].split("..")
            some = [entry for entry in classes.values() if first <= entry.synset <= last]
        else:
            some = [classes[name[1:]]] if name.startswith("=") else []
        scientific, english = [*rest, "", ""][:2]
        for entry in some:
            found.append(dict(zip(COLUMNS, (entry.synset, scientific, rank, parent, english or entry.words[0], ""), strict=True)))
        if not some:
            found.append(dict(zip(COLUMNS, (name, name, rank, parent, rest[0] if rest else "", ""), strict=True)))
        parents.append(found[-1]["label"])
    return found


def sourced(found: list[dict[str, str]], known: Nouns) -> None:
    "Say of each row whether WordNet has its name and its place."
    by_name = {name: offset for offset, (words, _) in known.items() for name in names_of(words) if words[0][:1].isupper() or words[-1][:1].isupper()}
    tree = {row["label"]: row for row in found}
    for row in found:
        is_class = re.fullmatch(r"n\d{8}", row["label"])
        offset = row["label"][1:] if is_class else by_name.get(row["scientific"].casefold(), "")
        places = above(known, offset) if offset else []
        said = set().union(*map(names_of, places)) if places else set()
        name_known = not row["scientific"] or row["scientific"].casefold() in said
        parent, wanted = row["parent"], ""
        while parent and not wanted:  # the next taxon above that WordNet has at all
            wanted = parent if parent.casefold() in by_name else ""
            parent = tree[parent]["parent"]
        placed = not wanted or wanted.casefold() in said
        row["source"] = "wordnet" if offset and name_known and placed and (places or not is_class) else "hand"
        if row["source"] == "hand":
            print(f"{row['common_eng'] or row['label']}: here {row['scientific'] or '-'} in {row['parent']}; WordNet: {', '.join(w[0] for w in places[:6]) or 'nothing'}")


def main() -> None:
    path = Path(sys.argv[1] if sys.argv[1:] else "/usr/share/wordnet/data.noun")
    if not path.is_file():
        raise SystemExit(f"{path} is not there: install Debian's package wordnet-base, or name WordNet's file data.noun.")
    sourced(found := rows(), nouns(path))
    with OUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(len(found), "nodes", Counter(row["source"] for row in found), Counter(row["rank"] for row in found))


if __name__ == "__main__":
    main()
