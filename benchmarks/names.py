"""How good the finer names of the ready-made model and of probes are: their temperatures (species_wb/data/finer_names.json), and how many names are right.

    python benchmarks/names.py PHOTOS [--fit] [--sheet FOLDER]

PHOTOS is shared/photos: its SOURCES.csv says of each photo what its first collection called it. TRUTH says which node of the taxonomy each of these words stands for. A name is right if it is that node or one above it,
and wrong if it is another; a name below the node is wrong where the word names something that ImageNet does not have (an octopus is no nautilus), and cannot be checked where the word is wide (which snake?).
With --fit, one temperature a network is fitted to the photos of PHOTOS/train that do not come from ImageNet (the network may know the others from its training), by the least log loss of the node among the names
of the photo's class; the threshold SURE of `roll_up` was chosen with the table that this prints. Without, the file in use is scored, on train and test, on ImageNet's own photos and on others.
--sheet draws the photos with their answers, to look at: wrong names last.
"""

import argparse
import csv
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from species_wb.core import in_threads, write_json
from species_wb.engine import model_file
from species_wb.metrics.intervals import wilson
from species_wb.models import ready_made
from species_wb.models.finer_names import FILE, NETWORKS
from species_wb.photos import pixels
from species_wb.progress import progress
from species_wb.roll_up import SURE, _among, taxon_rows
from species_wb.taxa import CLASSES, imagenet, plain_name
from species_wb.taxonomy import imagenet_taxonomy, lineage, names_of

IMAGENET = ("imagenet-sample", "Targeted-Tansfer", "ajschumacher/imagen", "imagenet-stubs")  # collections of ImageNet's own photos
# word of the collection = node; + where the word is wide, so that a name below the node cannot be checked
TRUTH = """scorpion=Scorpiones snake=Squamata+ frog=Anura+ starfish=Asteroidea nautilus=Nautilus tick=Ixodida lotus=Magnoliopsida bonsai=Plantae+ sunflower=Asteraceae crab=Decapoda+ toad=Anura
water_lilly=Tracheophyta joshua_tree=Asparagales psilocybe=Agaricales+ octopus=Cephalopoda crayfish=crayfish jellyfish=jellyfish dragonfly=Anisoptera butterfly=Lepidoptera+ ants=Formicidae ant=Formicidae
mushrooms=Fungi+ bees=bee hawksbill=Testudines crocodile=Crocodylia+ flamingo_head=Phoenicopteridae crocodile_head=Crocodylia+ daisy=daisy bee=bee pigeon=Aves flamingo=Phoenicopteridae emu=Aves lobster=Decapoda+
snail=snail mayfly=Insecta amanita_vaginata=Agaricales+ amanita_muscaria=Agaricales+ rooster=cock raccoon=Carnivora llama=Lama elephant=Elephantidae+ mushroom=Fungi+ boletus_edulis=Boletaceae ibis=Threskiornithidae
salamander=Caudata+ axolotl=Ambystoma_mexicanum lizard=Squamata+ buckeye=Aesculus whale=Cetacea+ stag=Coleoptera toucan=Ramphastidae crane=Gruidae shrimp=Decapoda crabs=Decapoda+ turtle=Testudines+
tulip=Liliopsida squid=Cephalopoda cuttle=Cephalopoda kangaroo=Macropodidae beaver=Castor ringlet=ringlet ladybug=Coccinellidae boletus_erythropus=Boletaceae Lactarius=Agaricomycetes Entoloma=Agaricales+
Cortinarius=Agaricales+ Amanita=Agaricales+ penguin=Sphenisciformes+ spider=Araneae+ lobsters=Decapoda+ newt=Salamandridae+ iguana=Iguana_iguana alligator=Alligator_mississippiensis sunflowers=Asteraceae
orchid=Orchidaceae+ porcupine=porcupine okapi=Artiodactyla cougar_body=Puma_concolor cougar_face=Puma_concolor grasshopper=grasshopper Suillus=Boletales Russula=Agaricomycetes Hygrocybe=Agaricales+ Boletus=Boletaceae
Agaricus=Agaricales+ bird=Aves+ millipede=Arthropoda horseshoe=Arthropoda corals=Anthozoa+ centipede=Chilopoda tortoise=Testudines gharial=Crocodylia gecko=Squamata+ chameleon=Chamaeleonidae bushviper=Viperidae
tulips=Liliopsida roses=Rosaceae lilly=Liliopsida slug=slug wild_cat=Felidae+ walrus=Carnivora sea_lion=sea_lion rhino=Perissodactyla pangolin=Mammalia hedgehog=Mammalia gerenuk=Bovidae owl=Strigiformes+
dendrobates_leucomelas=Anura sea_urchin=Echinoidea snapturtle=Testudines komodo=Varanus_komodoensis gila=Heloderma_suspectum cottonmouth=Viperidae anaconda=Squamata dandelion=Asteraceae nudibranch=Nudibranchia
mussel=Mollusca cuttlefish=Cephalopoda koala_bear=Phascolarctos_cinereus monkey=Primates+ seal=Carnivora+ sheep=Ovis+ sloth=Pilosa+ squirrel=Sciuridae+ swine=Suidae+ antelope=Bovidae+ cattle=Bos_taurus+
dog=Canis_familiaris+ fossa=Carnivora fox=Canidae+ horse=Equus_caballus+ red_panda=Ailurus_fulgens tiger=Panthera_tigris zebra=zebra lion=Panthera_leo orbweaver=Araneae+ puffin=Charadriiformes bull_frog=Lithobates_catesbeianus
grassshrimp=Decapoda black-widow=Latrodectus jumping=Araneae brown-recluse=Araneae cockatoo=Cacatua_galerita cassowary=Aves mouse=Rodentia"""


def truths(photos: Path) -> list[dict[str, Any]]:
    "The rows of SOURCES.csv whose words name a node: path, class, node, whether the word is wide, whether it is ImageNet's own photo, whether ImageNet has the species or may have it, split."
    known, names = dict(pair.split("=") for pair in TRUTH.split()), names_of(imagenet_taxonomy())
    first = {entry.words[0]: entry.synset for entry in imagenet() if entry.taxon}
    leaves = set(first.values())
    found = []
    for row in csv.DictReader((photos / "SOURCES.csv").open(encoding="utf-8")):
        word, own = row["species_or_label"], any(one in row["source_repo_or_package"] for one in IMAGENET)
        said = known.get(word.replace(" ", "_"), "")
        wide, node = said.endswith("+"), said.rstrip("+").replace("_", " ")
        plain = word.replace("_", " ")
        if own and plain in first:
            node, wide = first[plain], False
        elif node:
            node = first.get(node) or names[plain_name(node)]
        elif plain in first:
            node = first[plain]
        elif "ushroom" in row["source_repo_or_package"] or row["class"] == "Fungi":
            node, wide = "Fungi", True
        if node:
            known_species = wide or node in leaves
            found.append({"path": photos / row["file"], "class": row["class"], "node": node, "wide": wide, "own": own, "known": known_species, "split": row["file"].split("/")[0], "word": word})
    return found


def answers(model: model_file.ModelFile, rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    "Calibrated probabilities of the labels, and the numbers of the finer names, of each photo."
    found = []
    for one in progress(in_threads(lambda row: pixels.load(row["path"], model.info.spec), rows, 2, 8), model.info.spec.name, len(rows)):
        logits, _, names = model_file.infer_all(model, [one[None]])
        found.append((model_file.probabilities(model, logits)[0], names[0]))
    return np.array([p for p, _ in found]), np.array([n for _, n in found])


def judged(row: dict[str, Any], taxon: str | None, names: dict[str, str]) -> str:
    "Judge one name: none, class (no deeper than the class), right, wrong or unchecked."
    if taxon is None:
        return "none"
    tree, node = imagenet_taxonomy(), names[plain_name(taxon)]
    if row["node"] in lineage(tree, node) and row["node"] != node:
        return "unchecked" if row["wide"] else "wrong"
    right = node in lineage(tree, row["node"])
    deep = tree.nodes[node].rank not in ("kingdom", "phylum", "class")
    return "class" if right and not deep else "right" if right else "wrong"


def fitted(model: model_file.ModelFile, rows: list[dict[str, Any]], chances: np.ndarray, names: np.ndarray) -> tuple[float, int]:
    "The temperature with the least log loss of the true node among the names of its class, and the number of photos."
    tree, roll_up = imagenet_taxonomy(), model.roll_up
    assert roll_up is not None
    lines = [lineage(tree, roll_up.nodes[k]) for k in roll_up.above[:, 0]]
    use = []
    for k, row in enumerate(rows):
        mine = roll_up.of == CLASSES.index(row["class"])
        below = mine & np.array([row["node"] in line for line in lines])
        if row["split"] == "train" and not row["own"] and chances[k, : len(CLASSES)].argmax() == CLASSES.index(row["class"]) and 0 < below.sum() < mine.sum():
            use.append((k, below))

    def loss(temperature: float) -> float:
        p = _among(names[[k for k, _ in use]], roll_up.of, temperature)
        return float(np.mean([-np.log(max(own[below].sum(), 1e-6)) for own, (_, below) in zip(p, use, strict=True)]))

    return round(float(minimize_scalar(loss, bounds=(0.3, 5), method="bounded").x), 3), len(use)


def table(model: model_file.ModelFile, rows: list[dict[str, Any]], chances: np.ndarray, names: np.ndarray, least: tuple[float, ...]) -> list[list[str]]:
    "For each part of the photos: n, how many have a name below class level, and how many of those that can be checked are right. Returns the judgements at the last threshold."
    from dataclasses import replace

    words = names_of(imagenet_taxonomy())
    for sure in least:
        said = [row["taxon"] for row in taxon_rows(replace(model.roll_up, sure=sure), chances, names)]
        judgements = [judged(row, taxon, words) for row, taxon in zip(rows, said, strict=True)]
        for split, own, has in product(("train", "test"), (False, True), (True, False)):
            some = Counter(j for j, row in zip(judgements, rows, strict=True) if (row["split"], row["own"], row["known"]) == (split, own, has))
            if n := sum(some.values()):
                deep, checked = some["right"] + some["wrong"] + some["unchecked"], some["right"] + some["wrong"]
                low, high = wilson(some["right"], checked)
                whose = f"{'ImageNet' if own else 'other'} photos, {'species that ImageNet has' if has else 'species that it does not have'}"
                print(f"sure {sure:.2f}, {split}, {whose}: n = {n}; named below class level {deep / n:.3f}; right {some['right'] / checked:.3f} ({low:.3f} to {high:.3f}) of {checked} that can be checked; {dict(some)}")
    return [[j, taxon or ""] for j, taxon in zip(judgements, said, strict=True)]


def sheet(folder: Path, rows: list[dict[str, Any]], told: list[list[str]]) -> None:
    "Draw the photos with what was said, 60 a sheet."
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    order = sorted(range(len(rows)), key=lambda k: (told[k][0], rows[k]["node"]))
    for start in range(0, len(order), 60):
        page = Image.new("RGB", (10 * 160, 6 * 190), "white")
        for at, k in enumerate(order[start : start + 60]):
            photo = Image.open(rows[k]["path"]).convert("RGB")
            photo.thumbnail((156, 140))
            x, y = 160 * (at % 10), 190 * (at // 10)
            page.paste(photo, (x, y))
            ImageDraw.Draw(page).text((x, y + 142), f"{told[k][0]}\n{told[k][1][:26]}\n({rows[k]['word'][:24]})", fill="black")
        page.save(folder / f"{start // 60:02d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--sheet", type=Path)
    given = parser.parse_args()
    rows = truths(given.photos)
    if given.fit:
        import tempfile

        chosen = {}
        for name in NETWORKS:
            with tempfile.TemporaryDirectory() as folder:
                settings = next(c for c in ready_made.settings()["candidates"] if c["networks"] == [name])["numbers"][0]
                ready_made.make_file(Path(folder) / "m.onnx", {**ready_made.settings(), **settings, "network": name})
                model = model_file.open_model(Path(folder) / "m.onnx", 2)
                some = [row for row in rows if row["split"] == "train"]
                found = answers(model, some)
                temperature, n = fitted(model, some, *found)
                chosen[name] = {"temperature": temperature, "n": n}
                print(name, chosen[name])
        method = "the least log loss of the node that a photo's source names, among the names of its class, on photos of shared/photos/train that are not ImageNet's own (benchmarks/names.py)"
        write_json(Path(__file__).resolve().parent.parent / "species_wb" / "data" / FILE, {"method": method, "networks": chosen})
        return
    model = model_file.open_model(ready_made.find(), 2)
    kept = Path(f"/tmp/names-{model.sha256[:16]}.npz")  # the network need not run again to try another threshold
    if not kept.is_file():
        chances, names = answers(model, rows)
        np.savez(kept, chances=chances, names=names)
    told = table(model, rows, *np.load(kept).values(), (0.5, 0.6, 0.7, 0.75, 0.8, 0.9, SURE))
    if given.sheet:
        sheet(given.sheet, rows, told)


if __name__ == "__main__":
    main()
