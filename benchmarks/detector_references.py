"""What the authors' own programs make of their detectors' outputs: small arrays for tests/detect/test_decode.py, in tests/detect/references.npz.

    python benchmarks/detector_references.py tests/detect/references.npz

It runs in an environment of its own with torch, torchvision, yolox, yolov5, ultralytics, transformers, rfdetr and opencv-python-headless (no requirement of ours; ultralytics and yolov5 are AGPL or GPL).
Networks have few classes, small inputs and random weights, with biases set so that boxes come out; the photo is not square, so that letterboxing counts. For each layout are kept what the network gave,
and the boxes, scores and classes that its authors' post-processing made of it, in pixels of the photo. For each preparation the input that their own program makes of the photo is kept.
"""

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false", "YOLO_OFFLINE": "true", "HF_HUB_OFFLINE": "1", "YOLO_CONFIG_DIR": tempfile.mkdtemp()}

import cv2
import numpy as np
import torch
import torchvision

FLOOR = 0.01
SIDE = 64
FOUND: dict[str, dict[str, np.ndarray]] = {}
Arrays = dict[str, np.ndarray]


def photo() -> np.ndarray:  # 65×100×3 uint8, RGB; the test makes the same
    "Draw a photo of coloured squares."
    return np.random.default_rng(16).integers(0, 256, (13, 20, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)


def keep(outputs: dict[str, torch.Tensor | np.ndarray], boxes: object, scores: object, classes: object, **more: object) -> Arrays:
    "Return what is stored of one layout."
    own = {f"output-{name}": np.asarray(a.detach() if isinstance(a, torch.Tensor) else a) for name, a in outputs.items()}
    result = {"boxes": np.asarray(boxes, np.float32).reshape(-1, 4), "scores": np.asarray(scores, np.float32), "classes": np.asarray(classes, np.int16)}
    assert len(result["scores"]) > 3, "no boxes came out"
    return own | result | {name: np.asarray(a) for name, a in more.items()}


def liven(layers: list[torch.nn.Module], run: Callable[[], object]) -> None:
    "Scale the random weights of the last layers so that their answers differ: mean 0, spread 2."
    for layer in layers:
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        measured = []
        hook = layer.register_forward_hook(lambda m, i, out, measured=measured: measured.append(float(out.std())))
        with torch.no_grad():
            run()
            hook.remove()
            layer.weight *= 2 / max(np.mean(measured), 1e-6)


def last_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    "Return the layers of a YOLO that give the scores (of YOLOv5: everything)."
    head = model.model[-1]
    return [m[-1] for name in ("cv3", "one2one_cv3") for m in getattr(head, name, None) or []] or list(head.m)


def yolox(decoded: bool) -> Arrays:
    "YOLOX nano: `preproc`, the network, `yolox.utils.postprocess`, as in its tools/demo.py."
    from yolox.data.data_augment import preproc
    from yolox.models import YOLOPAFPN, YOLOX, YOLOXHead
    from yolox.utils import postprocess

    torch.manual_seed(1)
    channels = [256, 512, 1024]
    model = YOLOX(YOLOPAFPN(0.33, 0.25, in_channels=channels, depthwise=True), YOLOXHead(3, 0.25, in_channels=channels, depthwise=True)).eval()
    given, ratio = preproc(photo()[..., ::-1], (SIDE, SIDE))
    liven([*model.head.obj_preds, *model.head.cls_preds], lambda: model(torch.from_numpy(given)[None]))
    for conv in model.head.reg_preds:
        torch.nn.init.constant_(conv.bias, 1.2)  # boxes of three cells, so that they overlap
    with torch.no_grad():
        model.head.decode_in_inference = False
        raw = model(torch.from_numpy(given)[None])
        model.head.decode_in_inference = True
        full = model(torch.from_numpy(given)[None])
    found = postprocess(full.clone(), 3, FLOOR, 0.45)[0]
    return keep({"output": full if decoded else raw}, found[:, :4] / ratio, found[:, 4] * found[:, 5], found[:, 6], input=given)


def letterboxed() -> tuple[np.ndarray, torch.Tensor]:
    "The input of ultralytics' programs for a network of a fixed size."
    from ultralytics.data.augment import LetterBox

    picture = LetterBox((SIDE, SIDE), auto=False)(image=photo())
    return picture, torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() / 255


def yolov5(cfg: str, side: int) -> Arrays:
    "YOLOv5: its network and `non_max_suppression` as in detect.py, and ultralytics' `scale_boxes`."
    import yolov5
    from ultralytics.utils.ops import scale_boxes
    from yolov5.models.yolo import Model
    from yolov5.utils.general import non_max_suppression

    torch.manual_seed(2)
    root = Path(yolov5.__file__).parent / "models"
    model = Model(next(root.rglob(cfg)), ch=3, nc=3).eval()
    picture, given = letterboxed()
    liven(last_layers(model), lambda: model(given))
    with torch.no_grad():
        out = model(given)[0]
    found = non_max_suppression(out.clone(), FLOOR, 0.45, max_det=300)[0]
    return keep({"output0": out}, scale_boxes((SIDE, SIDE), found[:, :4].clone(), photo().shape), found[:, 4], found[:, 5], input=picture)


def ultralytics(cfg: str) -> Arrays:
    "An ultralytics network, its `non_max_suppression` with the values of `predict`, and `scale_boxes`."
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import scale_boxes

    torch.manual_seed(3)
    model = DetectionModel(cfg, nc=3, verbose=False).eval()
    _, given = letterboxed()
    liven(last_layers(model), lambda: model(given))
    model.model[-1].export, model.model[-1].format = True, "onnx"
    if "v10" in cfg:
        model.model[-1].end2end = True
    with torch.no_grad():
        out = model(given)
        out = out[0] if isinstance(out, tuple | list) else out
    end = out.shape[-1] == 6
    found = non_max_suppression(out.clone(), FLOOR, 0.7, max_det=300, nc=3, end2end=end)[0]
    return keep({"output0": out}, scale_boxes((SIDE, SIDE), found[:, :4].clone(), photo().shape), found[:, 4], found[:, 5])


def of_torchvision(name: str) -> Arrays:
    "A network of torchvision, asked with the photo at 80×52: it does everything inside."
    torch.manual_seed(4)
    more = {} if "ssd" in name else {"min_size": 64, "max_size": 128}
    more |= {"rpn_score_thresh": 0.0, "box_score_thresh": FLOOR} if "rcnn" in name else {}
    model = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, num_classes=91, detections_per_img=40, **more).eval()
    given = [torch.from_numpy(cv2.resize(photo(), (80, 52)).transpose(2, 0, 1).copy()).float() / 255]
    scores = [m for key, m in model.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d) if key.endswith(("cls_score", "cls_logits")) or "classification_head.module_list" in key and key.endswith(".1")]
    liven(scores, lambda: model(given))
    with torch.no_grad():
        out = model(given)[0]
    return keep(out, out["boxes"] * torch.tensor([100 / 80, 65 / 52] * 2), out["scores"], out["labels"])


def of_transformers(name: str) -> Arrays:
    "A small DETR of transformers, and its `post_process_object_detection`."
    import transformers as t

    torch.manual_seed(5)
    own = {"num_labels": {"Detr": 91, "DeformableDetr": 91, "RTDetr": 80}[name], "d_model": 32}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 20, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    backbone = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage2", "stage3", "stage4"])
    if name == "RTDetr":
        backbone = t.RTDetrResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage2", "stage3", "stage4"])
        own |= {"encoder_hidden_dim": 32, "encoder_in_channels": [16, 16, 32], "decoder_in_channels": [32, 32, 32], "feat_strides": [8, 16, 32]}
        layers["num_queries"], _ = 20, layers.pop("num_queries")
    else:
        own |= {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
        backbone.out_features = ["stage4"] if name == "Detr" else ["stage2", "stage3", "stage4"]
    config = getattr(t, f"{name}Config")(backbone_config=backbone, **own, **layers)
    model = getattr(t, f"{name}ForObjectDetection")(config).eval()
    side = 2 * SIDE if name == "DeformableDetr" else SIDE
    processor = getattr(t, f"{name}ImageProcessor")(size={"height": side, "width": side}, do_pad=False)
    given = processor(images=[photo()], return_tensors="pt")["pixel_values"]
    scores = [m for key, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ("class" in key or "score_head" in key)]
    liven(scores, lambda: model(pixel_values=given))
    with torch.no_grad():
        out = model(pixel_values=given)
    more = {"top_k": 20} if name == "DeformableDetr" else {}
    found = processor.post_process_object_detection(out, threshold=FLOOR, target_sizes=[photo().shape[:2]], **more)[0]
    order = torch.argsort(-found["scores"], stable=True)
    return keep({"logits": out.logits, "pred_boxes": out.pred_boxes}, found["boxes"][order], found["scores"][order], found["labels"][order], input=given.numpy().astype(np.float16))


def rfdetr() -> Arrays:
    "Logits and boxes in RF-DETR's form, its `preprocess_to_nchw` and `decode_detections`."
    from PIL import Image
    from rfdetr.export._runtime.decode import decode_detections
    from rfdetr.export._runtime.preprocess import preprocess_to_nchw

    rng = np.random.default_rng(6)
    given = preprocess_to_nchw(Image.fromarray(photo()), SIDE, SIDE)
    logits, boxes = rng.normal(-3, 2, (1, 20, 91)).astype(np.float32), rng.uniform(0.1, 0.9, (1, 20, 4)).astype(np.float32)
    found = decode_detections(boxes[0], logits[0], (100, 65), FLOOR, background_class_id=None)
    return keep({"dets": boxes, "labels": logits}, found.xyxy, found.confidence, found.class_id, input=given.astype(np.float16))


MADE: dict[str, Callable[[], Arrays]] = {
    "yolox": lambda: yolox(False),
    "yolox-decoded": lambda: yolox(True),
    "yolov5": lambda: yolov5("yolov5n.yaml", SIDE),
    "yolov5-p6": lambda: yolov5("yolov5n6.yaml", SIDE),
    "yolov8": lambda: ultralytics("yolov8n.yaml"),
    "yolov9": lambda: ultralytics("yolov9t.yaml"),
    "yolo11": lambda: ultralytics("yolo11n.yaml"),
    "yolov10": lambda: ultralytics("yolov10n.yaml"),
    "faster-rcnn": lambda: of_torchvision("fasterrcnn_mobilenet_v3_large_320_fpn"),
    "retinanet": lambda: of_torchvision("retinanet_resnet50_fpn"),
    "ssdlite": lambda: of_torchvision("ssdlite320_mobilenet_v3_large"),
    "detr": lambda: of_transformers("Detr"),
    "deformable-detr": lambda: of_transformers("DeformableDetr"),
    "rt-detr": lambda: of_transformers("RTDetr"),
    "rf-detr": rfdetr,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the .npz file to write")
    parser.add_argument("--only", default="", help="make one layout only, and write nothing")
    args = parser.parse_args()
    stored, failed = {}, []
    for name, make in MADE.items():
        if args.only and name != args.only:
            continue
        try:
            arrays = make()
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        stored |= {f"{name}/{key}": a for key, a in arrays.items()}
        print(f"{name:16}", {key: a.shape for key, a in arrays.items()}, f"highest score {arrays['scores'].max():.2f}")
    if not args.only and not failed:
        np.savez_compressed(args.out, **stored)
        print(f"{args.out}: {args.out.stat().st_size} bytes")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
