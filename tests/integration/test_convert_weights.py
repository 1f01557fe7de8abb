from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from detector import Detector
from detector.cli.convert_weights import main
from detector.config import dump_config
from detector.data.shapes import CLASS_NAMES
from detector.weights.layouts import CAFFE, MMDETECTION, to_layout
from detector.weights.own_file import WeightsInfo, save_weights
from tests.tiny import NUM_CLASSES, tiny_config, tiny_model

BATCH = ("model.backbone.norm=frozen_batch",)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A weights file of this toolkit."""
    info = WeightsInfo(dump_config(tiny_config(*BATCH)), CLASS_NAMES, tuple(range(1, NUM_CLASSES + 1)), 4)
    save_weights(tmp_path / "own.safetensors", tiny_model(*BATCH).state_dict(), info)
    return tmp_path / "own.safetensors"


def _certificate(path: str) -> dict[str, object]:
    return json.loads(Path(path + ".certificate.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("suffix", ["pkl", "pth", "safetensors"])
def test_out_to_detectron2_and_back_every_tensor_is_bit_equal(own: Path, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(tiny_config(*BATCH)))
    there, back = f"there.{suffix}", "back.safetensors"
    assert main([str(own), there, "--to", "detectron2"]) == 0
    assert main([there, back, "--to", "detector", "--config", "config.yaml"]) == 0
    before, after = load_file(own), load_file(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    certificate = _certificate(there)
    assert certificate["tensors"] == {"compared": len(before), "bit_equal": len(before)}
    stages = certificate["stages"]
    assert isinstance(stages, dict)
    assert set(stages) == {
        "c4_features", "rpn_logits", "rpn_deltas", "proposals", "class_logits", "box_deltas", "boxes",
    }  # fmt: skip
    assert all(stage["largest_difference"] == 0 for stage in stages.values())


def test_the_names_of_a_detectron2_file_are_its_own(own: Path) -> None:
    assert main([str(own), "there.pkl", "--to", "detectron2"]) == 0
    content = pickle.loads(Path("there.pkl").read_bytes())
    assert content["matching_heuristics"] is False
    assert "backbone.stem.conv1.norm.running_var" in content["model"]
    assert "roi_heads.box_predictor.cls_score.weight" in content["model"]


def test_torchvision_reads_the_backbone_that_we_write(own: Path) -> None:
    assert main([str(own), "resnet.pth", "--to", "torchvision"]) == 0
    theirs = torchvision.models.resnet18(norm_layer=torchvision.ops.FrozenBatchNorm2d)
    missing, unexpected = theirs.load_state_dict(torch.load("resnet.pth", weights_only=True), strict=False)
    assert (sorted(missing), unexpected) == (["fc.bias", "fc.weight"], [])
    pixels = torch.randn(1, 3, 64, 64)
    features = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(pixels))))
    features = theirs.layer3(theirs.layer2(theirs.layer1(features)))
    torch.testing.assert_close(tiny_model(*BATCH).backbone(pixels), features)


def test_a_resnet_of_caffe_goes_to_torchvision(tmp_path: Path) -> None:
    model, config = tiny_model(*BATCH, "model.backbone.depth=50"), tiny_config(*BATCH)
    tensors = to_layout(CAFFE, model.state_dict(), config.model.anchors)
    arrays = {name: value.numpy() for name, value in tensors.items() if "." not in name}
    Path("R-50.pkl").write_bytes(pickle.dumps(arrays))
    assert main(["R-50.pkl", "resnet50.pth", "--to", "torchvision"]) == 0
    assert "layer4.2.bn3.running_var" in torch.load("resnet50.pth", weights_only=True)
    assert main(["R-50.pkl", "detector.safetensors", "--to", "detector"]) == 2


def test_mmdetections_file_predicts_at_once(tmp_path: Path) -> None:
    model, config = tiny_model(*BATCH, "model.backbone.depth=50"), tiny_config(*BATCH)
    tensors = to_layout(MMDETECTION, model.state_dict(), config.model.anchors)
    torch.save({"meta": {"CLASSES": ("a",)}, "state_dict": tensors}, "faster_rcnn.pth")
    wanted = tiny_config(*BATCH, "model.backbone.depth=50")
    detector = Detector.load("faster_rcnn.pth", config=wanted, device="cpu")
    assert detector.class_names == [f"class_{label}" for label in range(NUM_CLASSES)]
    for key, value in detector.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=0, atol=0)


def test_an_existing_file_is_not_overwritten(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.pkl").write_text("mine")
    assert main([str(own), "there.pkl", "--to", "detectron2"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert Path("there.pkl").read_text() == "mine"
