"""detectron2's outputs for its R101-C4, from weights made by a formula: read, detect and train alike."""

from __future__ import annotations

import json
import pickle
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from detector import Detector, load_config
from detector.data.transforms import test_views as views_of
from detector.ops import matching
from detector.structures import ImageBatch, Target
from tests.scripts import load_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def known(shared: Path) -> dict[str, Any]:
    """The recorded outputs."""
    return json.loads((shared / "parity" / "r101_c4.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def formula(shared: Path) -> ModuleType:
    """The formula of weights and image."""
    return load_script(shared / "parity" / "deterministic.py")


@pytest.fixture(scope="module")
def detector(
    shared: Path, root: Path, known: dict[str, Any], formula: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Detector]:
    """A checkpoint as detectron2's zoo has them, loaded as a user would."""
    keys = json.loads((shared / "parity" / "r101_c4_keys.json").read_text())
    arrays = {key: formula.fill(key, shape, known["salt"]) for key, shape in keys.items()}
    arrays |= {key: np.array(values, dtype=np.float32) for key, values in known["overrides"].items()}
    for key, checksum in known["weights_crc32"].items():
        assert zlib.crc32(arrays[key].tobytes()) == checksum, "numpy no longer makes the same weights"
    path = tmp_path_factory.mktemp("zoo") / "model_final_f6e8b1.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    config = load_config(root / "configs" / "coco" / "faster_rcnn_r101_c4_3x.yaml")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Detector.load(path, config=config, device="cpu")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def image(known: dict[str, Any], formula: ModuleType) -> np.ndarray:
    """The image, RGB."""
    bgr = formula.image(known["image_seed"])
    return np.ascontiguousarray(bgr[:, :, ::-1])


@pytest.fixture(scope="module")
def batch(detector: Detector, image: np.ndarray, known: dict[str, Any]) -> ImageBatch:
    """The image resized as detectron2 does."""
    ((pixels, _),) = views_of(image, detector.config.data.resize, detector.config.evaluation)
    resized = pixels.flip(0).permute(1, 2, 0).contiguous().numpy()
    assert list(resized.shape) == known["resized_shape"]
    assert zlib.crc32(resized.tobytes()) == known["resized_crc32"]
    return ImageBatch.of([pixels])


@pytest.fixture(scope="module")
def stages(detector: Detector, batch: ImageBatch) -> dict[str, Any]:
    """Every stage of one pass."""
    model = detector.model.eval()
    with torch.no_grad():
        features = model.backbone(model.normalize(batch.pixels))
        (output,) = model.rpn(features, batch.sizes[0])
        proposals = model.rpn.propose(output)
        logits, deltas = model.roi_head([features[0]], [proposals])
        (detections,) = model.roi_head.detect([features[0]], [proposals], batch.sizes)
    return {
        "features": features[0], "output": output, "proposals": proposals, "logits": logits, "deltas": deltas,
        "detections": detections,
    }  # fmt: skip


def test_the_conventions_of_the_checkpoint_are_taken(detector: Detector) -> None:
    model = detector.config.model
    assert (model.pixel_order, model.pixel_std, model.backbone.stride_in_1x1) == ("bgr", (1.0, 1.0, 1.0), True)
    assert detector.class_names[:2] == ["person", "bicycle"]
    assert detector.category_ids[-1] == 90


def test_c4_features_agree(stages: dict[str, Any], known: dict[str, Any]) -> None:
    features, expected = stages["features"], known["c4"]
    assert list(features.shape) == expected["shape"][1:]
    assert float(features.mean()) == pytest.approx(expected["mean"], abs=1e-5)
    assert float(features.max()) == pytest.approx(expected["max"], abs=1e-3)
    for _, channel, y, x, value in expected["points"]:
        assert float(features[channel, y, x]) == pytest.approx(value, abs=1e-3)


def test_rpn_outputs_agree(stages: dict[str, Any], known: dict[str, Any]) -> None:
    height, width = known["rpn_logits"]["shape"][2:]
    logits = stages["output"].objectness.reshape(height, width, -1)
    deltas = stages["output"].deltas.reshape(height, width, -1)
    _close(logits[25, 33], known["rpn_logits"]["at_25_33"], 1e-3)
    _close(deltas[25, 33], known["rpn_deltas"]["at_25_33"], 1e-3)
    _close(logits.mean(dim=(0, 1)), known["rpn_logits"]["per_anchor_mean"], 1e-4)


def test_the_best_proposals_agree(stages: dict[str, Any], known: dict[str, Any]) -> None:
    assert len(stages["proposals"]) == known["proposals_total"]
    _close(stages["proposals"][:100], known["proposals_top100"]["boxes"], 0.05)


def test_box_head_outputs_agree(stages: dict[str, Any], known: dict[str, Any]) -> None:
    _close(stages["logits"][:5], known["box_head"]["cls_logits_first_5"], 1e-3)
    _close(stages["deltas"][:3].flatten(1)[:, :16], known["box_head"]["deltas_first_3_first_16"], 1e-3)


def test_all_detections_agree(stages: dict[str, Any], known: dict[str, Any]) -> None:
    _same_detections(stages["detections"], known["detections_resized_coords"])


def test_predict_agrees_in_original_pixels(detector: Detector, image: np.ndarray, known: dict[str, Any]) -> None:
    _same_detections(detector.predict(image, score_threshold=0.0), known["detections_original_coords"])


def test_losses_and_gradients_agree(
    detector: Detector, batch: ImageBatch, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_draw", lambda indices, count, generator: indices[:count])
    truth = known["train"]["gt"]
    target = Target(torch.tensor(truth["boxes"]), torch.tensor(truth["classes"]))
    model = detector.model.train()
    losses = model(batch, [target])
    names = {
        "loss_rpn_cls": "loss_objectness", "loss_rpn_loc": "loss_rpn_box", "loss_cls": "loss_class",
        "loss_box_reg": "loss_box",
    }  # fmt: skip
    for theirs, ours in names.items():
        assert losses[ours].item() == pytest.approx(known["train"]["losses"][theirs], rel=1e-4), ours
    torch.stack(list(losses.values())).sum().backward()
    parameters = dict(model.named_parameters())
    for theirs, norm in known["train"]["grad_l2_norm"].items():
        gradient = parameters[_own_name(theirs)].grad
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(norm, rel=1e-3), theirs
    for theirs in known["train"]["params_without_grad"]:
        assert parameters[_own_name(theirs)].grad is None


def _own_name(key: str) -> str:
    """Written here once more, so that the table of the loader is not checked against itself."""
    parts = [
        (r"^backbone\.stem\.conv1\.", "backbone.conv1.conv."),
        (r"^backbone\.res(\d)\.(.*)\.weight$", r"backbone.conv\1_x.\2.conv.weight"),
        (r"^roi_heads\.res5\.(.*)\.weight$", r"roi_head.conv5_x.\1.conv.weight"),
        (r"^proposal_generator\.rpn_head\.", "rpn."),
        (r"objectness_logits", "objectness"),
        (r"anchor_deltas", "deltas"),
        (r"^roi_heads\.box_predictor\.cls_score", "roi_head.class_layer"),
        (r"^roi_heads\.box_predictor\.bbox_pred", "roi_head.box_layer"),
    ]
    for pattern, replacement in parts:
        key = re.sub(pattern, replacement, key)
    return key


def _close(found: Tensor, expected: Any, tolerance: float) -> None:
    assert_close(found, torch.tensor(expected), rtol=0, atol=tolerance)


def _same_detections(found: Any, expected: dict[str, Any]) -> None:
    """Equal up to the order of scores closer than 1e-4: each expected one is found once."""
    assert len(found) == expected["n"]
    boxes, scores, labels = (torch.tensor(expected[name]) for name in ("boxes", "scores", "classes"))
    _close(found.scores, expected["scores"], 1e-3)
    used: set[int] = set()
    for box, score, label in zip(boxes, scores, labels, strict=True):
        fitting = (found.labels == label) & ((found.scores - score).abs() < 1e-3)
        fitting &= ((found.boxes - box).abs() < 0.05).all(dim=1)
        rows = [row for row in torch.nonzero(fitting).flatten().tolist() if row not in used]
        assert rows, f"no detection of class {label} at {box.tolist()}"
        used.add(rows[0])
