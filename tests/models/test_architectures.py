"""Every architecture builds, learns, exports and answers in its file as it did in torch; published weights and people's own files land where they belong."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from conftest import give_memory_back
from safetensors.torch import save_file
from torch import nn

from species_wb.engine import model_file
from species_wb.models import networks, registry, weights
from species_wb.cli_models import NETWORKS, WEIGHTS
from species_wb.contracts import ModelInfo
from species_wb.core import UserError
from species_wb.models.export import FromBytes, parity, to_onnx
from species_wb.photos.pixels import prepare

TIMM = ["timm/test_resnet.r160_in1k", "timm/test_vit.r160_in1k"]  # tiny ones, of either kind
ALL = [*registry.ARCHITECTURES, *TIMM]
LITE = [name for name in registry.ARCHITECTURES if "lite" in name]
TORCHVISION = {
    "resnet18": "ResNet18", "resnet50": "ResNet50", "mobilenet_v2": "MobileNet_V2", "mobilenet_v3_large": "MobileNet_V3_Large", "inception_v3": "Inception_V3",
    "efficientnet_b0": "EfficientNet_B0", "efficientnet_v2_s": "EfficientNet_V2_S", "convnext_tiny": "ConvNeXt_Tiny",
}  # fmt: skip
PALACE = 698  # the number of its class in ImageNet


@cache
def preset(name):
    "torchvision's own account of how photos are prepared for its weights."
    from torchvision.models import get_weight

    return get_weight(f"{TORCHVISION[name]}_Weights.IMAGENET1K_V1").transforms()


@pytest.fixture(autouse=True)
def memory():
    yield
    give_memory_back()


def some_pixels(spec):
    "A Chinese palace and a flower, photos that scikit-learn carries, each whole and from near: the same everywhere."
    from sklearn.datasets import load_sample_images

    found = load_sample_images().images
    return np.stack([prepare(photo, spec) for photo in (*found, *(photo[40:, 200:] for photo in found))])


def shuffled(net, size=299):
    "A network in working order with random numbers everywhere, also where a fresh one has zeros and ones."
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(2, 3, size, size, generator=generator))
        for value in net.parameters():
            if value.ndim == 1:
                value.add_(0.2 * torch.rand(value.shape, generator=generator) - 0.1)
    return net.eval()


def test_the_registry_holds_what_was_promised():
    promised = "simple_cnn resnet18 resnet50 mobilenet_v2 mobilenet_v3_large inception_v3 efficientnet_b0 efficientnet_v2_s convnext_tiny efficientnet_lite0 efficientnet_lite1 efficientnet_lite2"
    assert set(registry.ARCHITECTURES) == set(promised.split())
    assert all(arch.spec.name == name for name, arch in registry.ARCHITECTURES.items())
    assert set(NETWORKS) == set(registry.ARCHITECTURES) and WEIGHTS == registry.WEIGHTS  # what the command offers


# ── each architecture, from building to its file ─────────────────────────────


# The quick tests have the cheapest network of each family; test-slow has its sisters. EfficientNet's is a lite one.
SISTERS = {*LITE[1:], TIMM[0], "resnet50", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"}
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in SISTERS else name for name in ALL]


@pytest.mark.parametrize("name", EACH)
def test_it_learns_and_its_file_answers_like_it(name, tmp_path):
    torch.manual_seed(0)
    network, spec, told = registry.build(name, 3, weights="none")
    assert told["used"] == "none" and network.training
    pixels = some_pixels(spec)

    size = 128 if networks.works_at(network, 128) else spec.input_size  # one step, at a size that is quick where it can be chosen
    x = FromBytes(nn.Identity(), replace(spec, input_size=size))(torch.from_numpy(pixels[:, :size, :size].copy()))
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    before = network.head.weight.detach().clone()
    logits, _, _, *auxiliary = network(x)
    assert len(auxiliary) == (name == "inception_v3")
    truth = torch.tensor([0, 1, 2, 0])
    loss = sum((w * nn.functional.cross_entropy(y, truth) for w, y in zip((1, networks.AUXILIARY_WEIGHT), (logits, *auxiliary), strict=False)), torch.zeros(()))
    loss.backward()
    assert [k for k, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    optimizer.step()
    assert not torch.equal(before, network.head.weight)

    info = ModelInfo(["a", "b", "c"], [0, 1, 2], spec)
    to_onnx(network, info, tmp_path / "model.onnx")
    assert network.training  # left as it was
    file = model_file.open_model(tmp_path / "model.onnx")
    assert parity(file, network, pixels)["probability"] < 1e-3
    embedding, features = model_file.run_network(file, pixels, ("embedding", "features"))
    assert np.allclose(embedding, features.mean((2, 3)), rtol=1e-3, atol=1e-3 * np.abs(embedding).max())
    with torch.inference_mode():
        assert np.allclose(FromBytes(network.eval(), spec)(torch.from_numpy(pixels))[1], embedding, rtol=1e-2, atol=1e-3 * np.abs(embedding).max())
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [o.name for o in graph.output] == ["logits", "embedding", "features"] and not [t.name for t in graph.initializer if "auxiliary" in t.name or "Aux" in t.name]


@pytest.fixture(scope="module")
def inception():
    "An untrained network: building it takes seconds."
    return registry.build("inception_v3", 2, "none")[0]


@pytest.mark.parametrize("size", [75, 96, 160, 331])
def test_inception_trains_at_other_sizes(inception, size):
    with torch.no_grad():
        outputs = inception.train()(torch.rand(2, 3, size, size))
    assert [tuple(v.shape[:2]) for v in outputs] == [(2, 2), (2, 2048), (2, 2048), (2, 2)]


def test_a_size_that_cannot_be_is_known_beforehand(inception):
    inception.train()
    transformer = registry.build("timm/vit_tiny_patch16_224", 2, "none")[0]
    assert networks.works_at(inception, 75) and not networks.works_at(inception, 64) and inception.training
    assert networks.works_at(transformer, 224) and not networks.works_at(transformer, 160)


# ── what is published ────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", TORCHVISION)
def test_pixels_are_prepared_as_torchvision_says(name):
    spec, said = registry.architecture(name).spec, preset(name)
    assert [spec.input_size] == said.crop_size and spec.input_size / spec.crop_fraction == pytest.approx(said.resize_size[0])
    assert spec.interpolation == said.interpolation.value
    assert spec.canonical_size == min(c for c in (256, 384, 512) if c >= said.resize_size[0])
    if name != "inception_v3":  # its network turns this normalisation into another one; see below
        assert [*spec.mean, *spec.std] == pytest.approx([*said.mean, *said.std])


@pytest.mark.parametrize("name", [*LITE, *TIMM])
def test_pixels_are_prepared_as_timm_says(name):
    import timm

    spec, said = registry.architecture(name).spec, timm.get_pretrained_cfg(name.removeprefix("timm/") if "/" in name else f"tf_{name}")
    assert (spec.input_size, spec.crop_fraction, spec.interpolation, spec.mean, spec.std) == (said.input_size[1], said.crop_pct, said.interpolation, said.mean, said.std)
    assert registry.architecture(name).licence.lower() == said.license


def publish(monkeypatch, name, state):
    monkeypatch.setitem(registry.ARCHITECTURES, name, replace(registry.architecture(name), fetch=lambda: state))


@pytest.mark.parametrize("name", TORCHVISION)
def test_published_weights_land_where_they_belong(name, monkeypatch):
    "A published network, its numbers shuffled, gives our network the same answers through its classifier, where that is linear."
    from torchvision.models import get_model

    torch.manual_seed(0)
    inception = name == "inception_v3"  # its second classifier needs large photos
    more = {"transform_input": True, "init_weights": False} if inception else {}
    published = shuffled(get_model(name, weights=None, **more), 299 if inception else 128)
    publish(monkeypatch, name, published.state_dict())
    network, spec, told = registry.build(name, 10, "imagenet")
    assert told["used"] == "imagenet" and "torchvision" in told["sentence"]
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8))
    x = FromBytes(nn.Identity(), replace(spec, input_size=128))(raw)
    linear = registry.imagenet_head(name)
    assert (linear is None) == (name == "mobilenet_v3_large")  # its classifier has a hidden layer
    with torch.inference_mode():
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preset(name).mean, preset(name).std))
        theirs = published((raw.permute(0, 3, 1, 2) / 255 - mean) / std if name == "inception_v3" else x)
        if linear is None:
            network.head = published.classifier
        else:
            network.head = nn.Linear(linear[0].shape[1], 1000)
            network.head.load_state_dict({"weight": linear[0], "bias": linear[1]})
        ours = network.eval()(x)[0]
    assert theirs.std() > 1e-3 and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    if network.auxiliary is not None:
        assert torch.equal(network.auxiliary[1].conv0.conv.weight, published.AuxLogits.conv0.conv.weight)


@pytest.mark.parametrize("name", LITE)
def test_the_packages_hold_what_they_say(name):
    import timm

    network, spec, told = registry.build(name, 10, "imagenet")
    state = registry.architecture(name).fetch()
    published = timm.create_model(f"tf_{name}")
    published.load_state_dict(state)  # strictly
    weight, bias = registry.imagenet_head(name)
    x = FromBytes(nn.Identity(), spec)(torch.from_numpy(some_pixels(spec)))
    with torch.inference_mode():
        theirs = published.eval()(x)
        ours = nn.functional.linear(network.eval()(x)[1], weight, bias)
    assert torch.allclose(ours, theirs, atol=1e-3)
    assert theirs[::2].softmax(1).mean(0).argmax() == PALACE  # it has learnt what one is
    assert told["licence"] == "Apache-2.0" and "package" in spec.weights


def test_mobilenet_v2_from_torchs_own_cache(weights, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(weights / "torch"))
    monkeypatch.setattr("species_wb.models.weights._answers", lambda url: pytest.fail("a kept file needs no hub"))
    from torchvision.models import mobilenet_v2

    network, spec, told = registry.build("mobilenet_v2", 10)
    assert told["used"] == "imagenet" and not told["substituted"] and spec.licence == "BSD-3-Clause"
    x = FromBytes(nn.Identity(), spec)(torch.from_numpy(some_pixels(spec)))
    with torch.inference_mode():
        theirs = mobilenet_v2(weights="IMAGENET1K_V1").eval()(x)
        assert torch.allclose(nn.functional.linear(network.eval()(x)[1], *registry.imagenet_head("mobilenet_v2")), theirs, atol=1e-3)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A hub's cache in which the files of tiny networks lie, and no hub."
    import timm
    from huggingface_hub import constants

    for name in TIMM:
        folder = tmp_path / f"models--timm--{name.removeprefix('timm/')}"
        (folder / "snapshots" / "1").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("1")
        torch.manual_seed(1)
        save_file(shuffled(timm.create_model(name.removeprefix("timm/")), 160).state_dict(), folder / "snapshots" / "1" / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("species_wb.models.weights._answers", lambda url: False)
    return tmp_path


@pytest.mark.parametrize("name", TIMM)
def test_timms_weights_come_from_the_hubs_cache(name, hub):
    import timm
    from safetensors.torch import load_file

    network, spec, told = registry.build(name, 10, "imagenet")
    assert told["used"] == "imagenet" and spec.weights == f"the published weights {name}" and spec.licence == "apache-2.0"
    published = timm.create_model(name.removeprefix("timm/"))
    published.load_state_dict(load_file(next(hub.glob(f"*{name[5:]}/snapshots/1/*"))))
    x = torch.rand(2, 3, 160, 160)
    with torch.inference_mode():
        _, embedding, features = network.eval()(x)
        theirs = published.eval().forward_features(x)
        assert torch.allclose(features.flatten(2), theirs.flatten(2) if theirs.ndim == 4 else theirs[:, published.num_prefix_tokens :].mT, atol=1e-5)
        linear = registry.imagenet_head(name)
        assert (linear is None) == ("vit" in name)  # pooled in another way than by the mean over its patches
        if linear:
            assert torch.allclose(nn.functional.linear(embedding, *linear), published(x), atol=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet10t.c3_in1k"])
def test_a_hub_out_of_reach_is_said(name, hub, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    _, spec, told = registry.build(name, 10)
    assert told["used"] == "none" and "did not answer within 5 s" in told["substituted"] and spec.weights == "random numbers"
    with pytest.raises(UserError, match="cannot be fetched"):
        registry.build(name, 10, "imagenet")
    with pytest.raises(weights.Unreachable):
        registry.imagenet_head(name)


def test_weights_that_were_never_published_are_refused():
    with pytest.raises(UserError, match="no ImageNet weights for timm/botnet50ts_256"):
        registry.check_weights("timm/botnet50ts_256", "imagenet")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnt50", "did you mean timm/resnet50"),
        ("timm/resnet50.no_such_tag", "did you mean timm/resnet50."),
        ("timm/", "timm.list_models"),
        ("timm/crossvit_9_240", "cannot be brought to a square map"),
        ("Timm/resnet50", "is not known"),
        ("", "is not known"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_in_a_sentence(name, said):
    with pytest.raises(UserError, match=said) as told:
        registry.build(name, 3, "none")
    assert len(str(told.value)) < 500


def test_channels_that_come_last_are_put_first():
    network, spec, _ = registry.build("timm/swin_tiny_patch4_window7_224", 2, "none")
    assert network.body(torch.zeros(1, 3, 224, 224)).shape == (1, 768, 7, 7) and network.head.in_features == 768


# ── a file of weights ────────────────────────────────────────────────────────


def saved(path, state):
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return str(path)


def test_weights_for_other_classes_lend_their_body(weights):
    path = weights / "mobilenet_v2_inat_bird.pth"
    network, spec, told = registry.build("mobilenet_v2", 10, str(path))
    assert told["used"] == "file" and "all 260 entries of the body fit" in told["sentence"] and "for 965 classes and is not used: a new head for these 10 is fitted" in told["sentence"]
    assert told["fit"]["reshaped"] == {"head.weight": ([965, 1280], [10, 1280]), "head.bias": ([965], [10])} and not told["fit"]["missing"] and not told["fit"]["unexpected"]
    assert torch.equal(network.body.net.features[0][0].weight, torch.load(path, weights_only=True)["features.0.0.weight"])
    with pytest.raises(UserError, match="another architecture"):
        registry.build("mobilenet_v3_large", 10, str(path))


@pytest.mark.parametrize(
    ("name", "prefix", "suffix"),
    [
        ("resnet18", "", ".pth"),
        ("resnet18", "module.", ".pth"),
        ("resnet18", "model.backbone.", ".safetensors"),
        ("inception_v3", "_orig_mod.module.", ".pth"),
        ("convnext_tiny", "model.", ".pth"),
    ],
)
def test_names_are_undressed(name, prefix, suffix, tmp_path):
    "Files from several GPUs, compiled networks and other programs, without the counters that older ones lack."
    from torchvision.models import get_model

    published = get_model(name, weights=None, num_classes=4, **({"init_weights": False} if name == "inception_v3" else {})).state_dict()
    state = {prefix + k: v for k, v in published.items() if not k.endswith("num_batches_tracked")}
    path = saved(tmp_path / f"w{suffix}", {"epoch": 3, "model": {"state_dict": state}} if suffix == ".pth" else state)
    network, _, told = registry.build(name, 4, path)
    assert told["fit"]["missing"] == ([] if name != "convnext_tiny" else ["head.weight", "head.bias"]) and not told["fit"]["reshaped"]
    assert ("is also for 4 classes, but a new head is fitted for these" in told["sentence"]) == (name != "convnext_tiny")  # its published classifier is more than our head
    own = network.body.net.state_dict()
    assert all(torch.equal(own[k], v) for k, v in published.items() if k in own and not k.endswith("num_batches_tracked"))
    json.dumps(told)


def test_what_did_not_fit_is_named(tmp_path):
    state = registry.build("resnet18", 4, "none")[0].state_dict()
    del state["body.net.layer1.0.conv1.weight"]
    state["body.net.conv1.weight"] = torch.zeros(64, 1, 7, 7)  # grey photos
    state["projector.weight"] = torch.zeros(2)
    _, _, told = registry.build("resnet18", 4, saved(tmp_path / "w.pth", state))
    for part in ("98 of 100 entries", "Missing in the file: body.net.layer1.0.conv1.weight.", "body.net.conv1.weight (64×1×7×7, not 64×3×7×7)", "Left over in the file: projector.weight."):
        assert part in told["sentence"], told["sentence"]


@pytest.mark.parametrize("pair", [("resnet18", "resnet50"), ("efficientnet_lite0", "efficientnet_lite1"), ("efficientnet_b0", "efficientnet_v2_s"), ("simple_cnn", "resnet18")])
def test_weights_of_another_architecture_are_refused(pair, tmp_path):
    for one, other in (pair, pair[::-1]):
        path = saved(tmp_path / f"{one}.pth", registry.build(one, 3, "none")[0].state_dict())
        with pytest.raises(UserError, match="another architecture"):
            registry.build(other, 3, path)


def test_a_run_that_went_wrong_lends_no_weights(tmp_path):
    state = registry.build("simple_cnn", 3, "none")[0].state_dict()
    state["body.net.0.0.weight"][0] = float("inf")
    with pytest.raises(UserError, match="not numbers, in body.net.0.0.weight"):
        registry.build("simple_cnn", 3, saved(tmp_path / "w.pth", state))


def test_the_file_answers_with_numbers_where_a_class_has_no_evidence_at_all(tmp_path):
    from species_wb.models.imagenet import PublishedClassifier

    torch.manual_seed(0)
    net, spec, _ = registry.build("simple_cnn", 3, "none")
    width = net.head.in_features
    net.known = PublishedClassifier(torch.randn(1000, width) * 1e6, torch.zeros(1000), [[1, 2, 3], [500], [7, 999]])
    net.head = nn.Linear(width + 3, 3)
    to_onnx(net.eval(), ModelInfo(list("abc"), [0, 1, 2], spec), tmp_path / "far.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (8, spec.input_size, spec.input_size, 3), dtype=np.uint8)
    file = model_file.run_network(model_file.open_model(tmp_path / "far.onnx", 1), pixels, ("logits",))[0]
    with torch.inference_mode():
        logits, embedding, _ = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
        evidence = net.known(embedding)
    lowest = evidence.min(1).values - evidence.max(1).values
    assert (lowest < -40).any(), "no sum of exponentials was 0"
    assert np.isfinite(file).all() and evidence.isfinite().all()
    assert np.allclose(file, logits, atol=0.05), np.abs(file - logits.numpy()).max()


def test_the_same_weights_have_the_same_fingerprint_whatever_the_head():
    first, second = (registry.build("efficientnet_lite0", n)[0] for n in (3, 10))
    assert networks.fingerprint(first.body) == networks.fingerprint(second.body) != networks.fingerprint(registry.build("efficientnet_lite0", 3, "none")[0].body)
