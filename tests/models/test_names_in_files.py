"""A probe's file carries the names that its published classifier knows, and an older frozen network still gets a head."""

import numpy as np
import pytest

from species_wb.contracts import ModelInfo
from species_wb.engine.model_file import infer_all, open_model
from species_wb.taxa import imagenet, members


@pytest.mark.parametrize("old", (pytest.param(False, marks=pytest.mark.slow), True))
def test_a_new_head_keeps_the_names_below_it(tmp_path, old):
    import torch
    from test_finetune import quick_onnx

    from species_wb.models import export, registry
    from species_wb.models.finer_names import finer_names
    from species_wb.models.imagenet import PublishedClassifier

    torch.manual_seed(0)
    labels = ["Aves", "Mammalia"]
    network, spec, _ = registry.build("simple_cnn", 2)
    width = network.head.in_features
    weight, bias = torch.randn(1000, width), torch.randn(1000)
    network.known = PublishedClassifier(weight, bias, members(labels))
    network.head = torch.nn.Linear(width + 2, 2)
    names = finer_names("efficientnet_lite0", labels, network.known.members)
    before = ModelInfo(["a", "b"], [0, 1], spec, names={} if old else names)
    quick_onnx(network, before, tmp_path / "frozen.onnx")
    head = np.random.default_rng(0).normal(size=(2, width + 2))
    export.with_head(tmp_path / "frozen.onnx", head, np.zeros(2), ModelInfo(labels, [0, 1], spec, names=names), tmp_path / "m.onnx")
    model = open_model(tmp_path / "m.onnx", 1)
    pixels = np.random.default_rng(1).integers(0, 256, (3, spec.input_size, spec.input_size, 3), np.uint8)
    logits, embedding, found, _ = infer_all(model, [pixels])
    if old:
        assert found is None and model.roll_up is None and model.info.names == {}
        return
    thousand = torch.from_numpy(embedding) @ weight.T + bias
    living = [k for k in sorted(sum(members(labels), [])) if imagenet()[k].taxon]
    assert [imagenet()[k].synset for k in living] == model.info.names["leaves"]
    assert np.allclose(found, torch.log_softmax(thousand[:, living], 1).numpy(), atol=1e-3)
