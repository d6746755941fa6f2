"""A model of 965 bird species with a taxonomy beside it answers the genus where it is not sure of the species."""

import csv
import re

import pytest
from test_job import rows, typed

from species_wb.contracts import ModelInfo, ModelSpec


def taxonomy(labels: list[str], path) -> None:
    "Write the taxonomy of `Genus species (English name)`: the genus is the name's first word."
    names = {label: re.fullmatch(r"((\w+) [\w ]+) \((.+)\)", label) for label in labels}
    genera = dict.fromkeys(m[2] for m in names.values() if m)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "scientific", "rank", "parent", "common_eng"])
        writer.writerow(["Aves", "Aves", "class", "", "birds"])
        writer.writerows([genus, genus, "genus", "Aves", ""] for genus in genera)
        writer.writerows([label, m[1], "species", m[2], m[3]] for label, m in names.items() if m)


def bird_model(weights, path):
    "Write the published bird model as a model file, with TensorFlow's padding."
    import torch
    from torch import nn

    from species_wb.models.export import to_onnx
    from species_wb.models.networks import torchvision_network

    labels = (weights / "inat_bird_labels.txt").read_text(encoding="utf-8").splitlines()
    state = torch.load(weights / "mobilenet_v2_inat_bird.pth", weights_only=True)
    network = torchvision_network("mobilenet_v2")(len(labels))
    head = {name.rpartition(".")[2]: value for name, value in state.items() if name.startswith("classifier.")}
    network.head.load_state_dict(head)
    network.body.net.load_state_dict({k: v for k, v in state.items() if not k.startswith("classifier.")})
    for name, layer in [*network.body.named_modules()]:
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2) and layer.kernel_size == (3, 3):
            layer.padding = (0, 0)
            network.body.set_submodule(name, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), layer))
    spec = ModelSpec("mobilenet_v2_inat_bird", 224, (0.5,) * 3, (0.5,) * 3, interpolation="bilinear")
    ids = [*range(len(labels) - 1), -1]  # the last one is the background
    to_onnx(network.eval(), ModelInfo(labels, ids, spec), path)
    return labels


@pytest.mark.slow
def test_a_bird_is_named_by_its_genus_where_its_species_is_not_sure(weights, photos, own_cache, tmp_path):
    labels = bird_model(weights, tmp_path / "birds.onnx")
    taxonomy(labels, tmp_path / "taxa.csv")
    how = ["--model", tmp_path / "birds.onnx", "--taxonomy", tmp_path / "taxa.csv", "--out", tmp_path / "a.csv"]
    done = typed("classify", photos / "train" / "Aves", *how)
    assert done.returncode == 0, done.stderr
    found = [row for row in rows(tmp_path / "a.csv") if row["label"]]
    species = [row for row in found if row["taxon_rank"] == "species"]
    genera = [row for row in found if row["taxon_rank"] == "genus"]
    assert species and genera and all(float(row["taxon_score"]) >= 0.8 for row in species + genera)
    for row in species:
        assert row["label"].startswith(row["taxon"]) and row["taxon_score"] == row["score"]
    for row in genera:
        assert float(row["score"]) < 0.8 and row["label"].split()[0] == row["taxon"]
