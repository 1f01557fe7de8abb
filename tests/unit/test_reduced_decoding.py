"""Large JPEGs decoded smaller for training: boxes follow, evaluation never sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from detector.cli import visualize
from detector.data.coco import open_coco
from detector.data.dataset import FileDataset, JoinedDataset, Subset, check_dataset
from detector.data.reduced_decoding import with_reduced_decoding
from detector.data.shapes import ShapesDataset
from detector.engine.distributed import Processes
from detector.engine.run_folder import RunFolder
from detector.engine.trainer import Trainer
from detector.errors import DatasetError
from detector.structures import Sample, Size
from tests.tiny import tiny_config, tiny_model, write_tiny


@pytest.fixture
def photos(tmp_path: Path) -> FileDataset:
    """One photo of 800 x 600 with one object."""
    Image.new("RGB", (800, 600), (90, 90, 90)).save(tmp_path / "a.jpg")
    return dataset_of(tmp_path, 800, 600)


def dataset_of(folder: Path, width: int, height: int) -> FileDataset:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [80, 60, 400, 200]}],
        "categories": [{"id": 1, "name": "cell"}],
    }  # fmt: skip
    (folder / "a.json").write_text(json.dumps(content))
    return open_coco(folder, folder / "a.json", None, False, 10**6)


def test_boxes_are_in_the_pixels_of_the_smaller_image(photos: FileDataset) -> None:
    sample = with_reduced_decoding(photos, 150)[0]
    assert sample.size == Size(150, 200)
    assert sample.boxes.tolist() == [[20, 15, 120, 65]]


def test_the_data_set_itself_is_left_as_it_is(photos: FileDataset) -> None:
    with_reduced_decoding(photos, 150)
    assert photos[0].size == Size(600, 800)
    assert photos[0].boxes.tolist() == [[80, 60, 480, 260]]


def test_parts_and_subsets_are_reached(photos: FileDataset) -> None:
    joined = JoinedDataset([photos])
    assert with_reduced_decoding(joined, 150)[0].size == Size(150, 200)
    assert with_reduced_decoding(Subset(joined, [0]), 300)[0].size == Size(300, 400)
    assert joined[0].size == Size(600, 800)


def test_a_users_own_data_set_is_given_back() -> None:
    shapes = ShapesDataset(2, 0, Size(64, 80), False)
    assert with_reduced_decoding(shapes, 10) is shapes


def test_the_contract_holds(photos: FileDataset) -> None:
    check_dataset(with_reduced_decoding(photos, 150))


def test_a_size_that_the_annotations_state_wrongly_is_still_found(photos: FileDataset, tmp_path: Path) -> None:
    wrong = with_reduced_decoding(dataset_of(tmp_path, 801, 600), 150)
    with pytest.raises(DatasetError, match="the image is 800 x 600, but its annotation says 801 x 600"):
        wrong[0]


@pytest.mark.parametrize(("wanted", "size"), [(False, Size(600, 800)), (True, Size(75, 100))])
def test_training_decodes_as_the_configuration_says(
    photos: FileDataset, tmp_path: Path, wanted: bool, size: Size
) -> None:
    config = tiny_config(f"data.reduced_decoding={str(wanted).lower()}")
    folder, device = RunFolder(tmp_path / "run"), torch.device("cpu")
    trainer = Trainer(config, tiny_model(), photos, None, folder, device, Processes())
    assert trainer.batches.dataset[0].size == size
    assert trainer.train_set[0].size == Size(600, 800)


def test_augmented_pictures_show_what_training_gets(photos: FileDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Size] = []
    original = FileDataset.__getitem__

    def reading(dataset: FileDataset, index: int) -> Sample:
        read.append(original(dataset, index).size)
        return original(dataset, index)

    monkeypatch.setattr(FileDataset, "__getitem__", reading)
    folder = Path(str(photos.info(0).path)).parent
    overrides = [f"data.val=[{{format: coco, images: {folder}, annotations: {folder}/a.json}}]"]
    for wanted in ("true", "false"):
        asked = ["--config", str(write_tiny(folder)), *overrides, f"data.reduced_decoding={wanted}", "--augmented"]
        assert visualize.main([*asked, "--output", "look"]) == 0
    assert read == [Size(75, 100), Size(600, 800)]
