"""A classifier over a data set: the numbers, and the files that are written."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from detector.config import Config, parse_config
from detector.data.classification.transform import classification_views
from detector.engine.classification.evaluation import evaluate_classifier
from detector.engine.classification.inference import classify, classify_dataset
from detector.engine.distributed import Processes
from detector.engine.evaluation import Asked
from detector.errors import ImageError, MachineError
from detector.models.classifier import ClassificationNetwork
from detector.structures import Annotations, ImageBatch, ImageInfo, Sample
from detector.visualization.draw import save_image
from detector.visualization.labels import draw_answer
from tests.classification_inputs import labelled
from tests.report_inputs import Parsed

CPU = torch.device("cpu")
NAMES = ("dark", "bright")
FILES = ["analysis.json", "metrics.json", "pictures", "predictions.json", "report.html"]


def config_of(*overrides: str) -> Config:
    text = """
    model: {classifier: {network: lenet}, pixel_mean: [0, 0, 0], pixel_order: rgb}
    data: {resize: {test_short_side: 28}, crop: {size: 28}, workers: 0}
    evaluation: {batch_size: 4}
    """
    return parse_config(text, "test", overrides)


class Brightness(ClassificationNetwork):
    """Takes an image for bright where its mean is above the middle; the farther, the surer."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.model, 2)

    def logits(self, pixels: Tensor) -> Tensor:
        mean = pixels.mean(dim=(1, 2, 3)) / 255 - 0.5
        return torch.stack([-mean, mean], dim=1)


@dataclass
class Shades:
    """Images of one shade each, half of which are labelled "bright"; some cannot be read."""

    shades: Sequence[int]
    unread: Sequence[int] = ()
    annotations: Annotations = field(init=False)

    def __post_init__(self) -> None:
        self.annotations = labelled([int(shade > 127) for shade in self.shades], NAMES)

    def __len__(self) -> int:
        return len(self.shades)

    def info(self, index: int) -> ImageInfo:
        return ImageInfo(f"image {index}", f"{index}.png", None)

    def __getitem__(self, index: int) -> Sample:
        if index in self.unread:
            raise ImageError(f"{index}.png: is broken")
        image = np.full((30 + index, 40, 3), self.shades[index], dtype=np.uint8)
        flag = np.zeros(1, dtype=bool)
        box = np.array([[0, 0, 40, 30 + index]], dtype=np.float32)
        label = self.annotations.labels[index : index + 1]
        return Sample(image, box, label, flag, flag, self.info(index))


def evaluate(shades: Shades, output: Path, *overrides: str, asked: Asked | None = None) -> dict[str, object] | None:
    config = config_of(*overrides)
    model = Brightness(config).to(CPU)
    return evaluate_classifier(model, shades, config, CPU, Processes(), output, asked or Asked())


def test_metrics_are_written_and_given_back(tmp_path: Path) -> None:
    metrics = evaluate(Shades([10, 20, 200, 250, 30, 240]), tmp_path)
    assert metrics is not None
    assert metrics["per_class"] == {
        "dark": {"images": 3, "accuracy": 1.0},
        "bright": {"images": 3, "accuracy": 1.0},
    }
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_predictions_name_image_class_answer_and_probability(tmp_path: Path) -> None:
    evaluate(Shades([255, 0]), tmp_path)
    first, second = json.loads((tmp_path / "predictions.json").read_text())
    sure = torch.tensor([0.5, -0.5]).softmax(0)[0].item()
    assert first == {
        "image_id": "image 0",
        "class": "bright",
        "predicted": "bright",
        "probability": first["probability"],
    }
    assert first["probability"] == pytest.approx(sure, abs=1e-6)
    assert second["predicted"] == "dark"


def test_the_page_shows_what_was_asked(tmp_path: Path) -> None:
    evaluate(Shades([255, 0]), tmp_path, asked=Asked(provenance={"Run": "runs/mine"}))
    text = Parsed((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "2 images of 2 classes" in text
    assert "runs/mine" in text
    assert "network: lenet" in text


def test_eight_pictures_are_drawn_at_most(tmp_path: Path) -> None:
    evaluate(Shades(list(range(0, 250, 10))), tmp_path)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert len(names) == 8
    assert names[0] == "000000.jpg"
    assert names[-1] == "000024.jpg"


def mislabelled() -> Shades:
    """A dark image and a bright one, which are both called "dark"."""
    shades = Shades([0, 255])
    shades.annotations = labelled([0, 0], NAMES)
    return shades


def test_a_picture_names_the_true_class_first(tmp_path: Path) -> None:
    shades = mislabelled()
    evaluate(shades, tmp_path)
    sure = json.loads((tmp_path / "predictions.json").read_text())[1]["probability"]
    save_image(tmp_path / "wanted.jpg", draw_answer(shades[1].image, "dark", "bright", sure))
    assert (tmp_path / "pictures" / "000001.jpg").read_bytes() == (tmp_path / "wanted.jpg").read_bytes()


def test_the_page_shows_the_mistakes_and_no_right_answer(tmp_path: Path) -> None:
    evaluate(mislabelled(), tmp_path)
    page = Parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    sure = json.loads((tmp_path / "predictions.json").read_text())[1]["probability"]
    assert f"dark taken for bright {sure:.3f} image 1" in page.text
    assert len([image for image in page.all("img") if str(image["src"]).startswith("data:image/jpeg")]) == 1


def test_an_image_that_cannot_be_read_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        metrics = evaluate(Shades([0, 10, 200, 250], [2]), tmp_path, "data.on_bad_sample=skip")
    assert metrics is not None
    assert metrics["images"] == 3
    assert "1 of 4 images cannot be read and are left out of all numbers" in caplog.text


def test_an_image_that_cannot_be_read_stops_a_strict_evaluation(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"2\.png"):
        evaluate(Shades([0, 10, 200, 250], [2]), tmp_path)


def test_a_stopped_evaluation_writes_nothing(tmp_path: Path) -> None:
    assert evaluate(Shades([0, 10, 200]), tmp_path, asked=Asked(should_stop=lambda: True)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_numbers_is_evaluated_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Brightness, "logits", lambda self, pixels: pixels.new_full((len(pixels), 2), float("nan")))
    with caplog.at_level(logging.WARNING):
        metrics = evaluate(Shades([0, 200]), tmp_path)
    assert metrics is not None
    assert "it has diverged" in caplog.text
    first = json.loads((tmp_path / "predictions.json").read_text())[0]
    assert first == {"image_id": "image 0", "class": "dark", "predicted": None, "probability": None}
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_a_full_disk_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        evaluate(Shades([0, 200]), tmp_path / "file")


def test_several_views_give_the_mean_of_their_probabilities() -> None:
    config = config_of()
    model = Brightness(config).eval()
    black, white = (torch.full((3, 28, 28), shade, dtype=torch.uint8) for shade in (0, 204))
    logs = classify(model, ImageBatch.of([black, white]), 2, CPU, "fp32")
    apart = classify(model, ImageBatch.of([black, white]), 1, CPU, "fp32")
    torch.testing.assert_close(logs[0].exp(), apart.exp().mean(dim=0))


def test_answers_do_not_depend_on_the_size_of_batches() -> None:
    shades = Shades([0, 100, 140, 255, 90])
    model = Brightness(config_of())
    one, many = (
        classify_dataset(model, shades, config_of(f"evaluation.batch_size={size}"), CPU, Processes()) for size in (1, 4)
    )
    assert one is not None
    assert many is not None
    np.testing.assert_array_equal(one.losses, many.losses)


def test_every_configured_view_is_seen() -> None:
    config = config_of("evaluation.flip=true", "evaluation.short_sides=[28, 32]")
    shades = Shades([0, 250])
    seen: list[int] = []

    class Counting(Brightness):
        def logits(self, pixels: Tensor) -> Tensor:
            seen.append(len(pixels))
            return super().logits(pixels)

    assert len(classification_views(shades[0].image, config)) == 4
    answers = classify_dataset(Counting(config), shades, config, CPU, Processes())
    assert answers is not None
    assert sum(seen) == 8


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), None),
        (("evaluation.precision=bf16",), torch.bfloat16),
        (("training.precision=bf16",), torch.bfloat16),
        (("training.precision=bf16", "evaluation.precision=fp32"), None),
    ],
)
def test_a_data_set_is_evaluated_in_the_precision_asked_for(
    overrides: tuple[str, ...], expected: torch.dtype | None
) -> None:
    config = config_of(*overrides)
    used: set[torch.dtype | None] = set()

    class Noting(Brightness):
        def logits(self, pixels: Tensor) -> Tensor:
            used.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
            return super().logits(pixels)

    classify_dataset(Noting(config), Shades([0, 250]), config, CPU, Processes())
    assert used == {expected}
