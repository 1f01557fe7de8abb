"""The loading of other toolkits gives the images that ours gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.build import open_split, training_order
from detector.data.loader import TrainingBatches
from detector.data.transforms import TrainTransform
from detector.engine.benchmark.loading import measure_loading
from detector.engine.benchmark.loading_peers import WAYS, PeerBatches
from detector.errors import UsageError
from tests.tiny import tiny_config

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture
def batches(tmp_path: Path) -> TrainingBatches:
    """Two JPEGs of smooth noise, one wide and one tall."""
    random = np.random.default_rng(0)
    records = []
    for number, size in enumerate([(90, 60), (60, 90)]):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(tmp_path / f"{number}.jpg", quality=95)
        records.append({"id": number, "file_name": f"{number}.jpg", "width": size[0], "height": size[1]})
    annotations = [{"image_id": 0, "category_id": 1, "bbox": [1, 2, 30, 40]}]
    content = {"images": records, "categories": [{"id": 1, "name": "a"}], "annotations": annotations}
    (tmp_path / "a.json").write_text(json.dumps(content))
    config = tiny_config(f"data.train=[{{format: coco, images: {tmp_path}, annotations: {tmp_path}/a.json}}]")
    dataset = open_split(config, "train")
    return TrainingBatches(dataset, training_order(config, dataset), TrainTransform(config.data, 0), 0, 1, 2)


@pytest.mark.parametrize("way", WAYS)
def test_a_peer_shows_the_same_picture(batches: TrainingBatches, way: str) -> None:
    ours = batches[0]
    assert not isinstance(ours, Exception)
    for number, theirs in enumerate(PeerBatches(batches, way)[0]):
        size = ours.images.sizes[number]
        pixels = ours.images.pixels[number, :, : size.height, : size.width].float()
        pictures = {"detectron2": lambda it: it.flip(0).float(), "torchvision": lambda it: 255 * (it * STD + MEAN)}
        shown = pictures.get(way, torch.Tensor.float)(theirs)
        assert shown.shape == pixels.shape
        assert (shown - pixels).abs().mean() < 1  # torchvision's own interpolation does not smooth


def test_drawn_images_have_no_peers() -> None:
    with pytest.raises(UsageError, match="shapes are drawn"):
        measure_loading(tiny_config(), 1, 1, ["detectron2"])
