from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from detector import Classification, Classifier, Detector
from detector.cli.visualize import main as visualize
from detector.config import dump_config
from detector.data.classification.transform import classification_views
from detector.errors import ImageError, UsageError, WeightsError
from detector.models.classifier import build_classifier
from detector.structures import ImageBatch
from detector.weights.load import read_weights
from detector.weights.own_file import WeightsInfo, save_weights
from tests.tiny import NUM_CLASSES, tiny_classifier_config, tiny_config, tiny_model

NAMES = ("cat", "dog", "horse")


def classifier_file(*overrides: str) -> Path:
    """The weights of a classifier with random weights, large enough to tell images apart."""
    config = tiny_classifier_config(*overrides)
    torch.manual_seed(0)
    model = build_classifier(config.model, len(NAMES))
    model.class_layer.weight.data.normal_()
    info = WeightsInfo(dump_config(config), NAMES, (1, 2, 3), 1200)
    save_weights(Path("model_best.safetensors"), model.state_dict(), info)
    return Path("model_best.safetensors")


def classifier_of(*overrides: str) -> Classifier:
    return Classifier.load(classifier_file(*overrides), device="cpu")


def picture(seed: int = 0, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_label(answer: Classification) -> Tensor:
    """The probabilities in the order of labels."""
    return torch.stack([answer.probabilities[answer.names.index(name)] for name in NAMES])


def assert_same(one: Classification, other: Classification) -> None:
    assert one.names == other.names
    torch.testing.assert_close(one.probabilities, other.probabilities)


def test_probabilities_are_the_softmax_of_the_networks_logits() -> None:
    classifier, image = classifier_of(), picture()
    [(pixels, _)] = classification_views(image, classifier.config)
    with torch.no_grad():
        logits = classifier.model.classify(ImageBatch.of([pixels]))[0]
    torch.testing.assert_close(by_label(classifier.predict(image)), logits.softmax(dim=0))


def test_classes_come_by_falling_probability() -> None:
    answer = classifier_of().predict(picture())
    assert sorted(answer.names) == sorted(NAMES)
    assert answer.probabilities.tolist() == sorted(answer.probabilities.tolist(), reverse=True)
    assert answer.probabilities.dtype == torch.float32
    assert float(answer.probabilities.sum()) == pytest.approx(1)


def test_name_and_label_are_those_of_the_most_probable_class() -> None:
    classifier = classifier_of()
    answer = classifier.predict(picture())
    assert answer.name == answer.names[0] == classifier.class_names[answer.label]


def test_a_classifier_knows_what_it_was_trained_with() -> None:
    classifier = classifier_of()
    assert classifier.class_names == list(NAMES)
    assert classifier.config == tiny_classifier_config()
    assert (classifier.device, classifier.precision) == (torch.device("cpu"), "fp32")
    assert not classifier.model.training


def test_a_list_of_images_gives_a_list() -> None:
    classifier = classifier_of()
    images = [picture(seed, 40 + seed, 50) for seed in range(5)]
    together = classifier.predict(images)
    assert len(together) == 5
    for image, answer in zip(images, together, strict=True):
        assert_same(answer, classifier.predict(image))


def test_an_empty_list_gives_an_empty_list() -> None:
    assert classifier_of().predict([]) == []


@pytest.mark.parametrize("kind", ["path", "text", "PIL"])
def test_an_image_may_come_in_any_form(kind: str) -> None:
    classifier, image = classifier_of(), picture()
    path = Path("image.png")
    Image.fromarray(image).save(path)
    forms = {"path": path, "text": str(path), "PIL": Image.fromarray(image)}
    assert_same(classifier.predict(forms[kind]), classifier.predict(image))


@pytest.mark.parametrize("overrides", [(), ("model.classifier.channels=1",)])
def test_a_gray_array_counts_as_three_equal_colours(overrides: tuple[str, ...]) -> None:
    classifier, gray = classifier_of(*overrides), picture()[:, :, 0]
    assert_same(classifier.predict(gray), classifier.predict(np.stack([gray] * 3, axis=2)))


def test_probabilities_are_averaged_over_the_views() -> None:
    plain, image = classifier_of(), picture()
    wanted = (by_label(plain.predict(image)) + by_label(plain.predict(image[:, ::-1].copy()))) / 2
    found = by_label(classifier_of("evaluation.flip=true").predict(image))
    # The mirror image of a resized image is the resized mirror image up to rounding.
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
    ids=str,
)
def test_an_array_of_another_form_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"an image array must be RGB uint8 \(height, width, 3\)"):
        classifier_of().predict(array)


def test_a_missing_image_is_named() -> None:
    with pytest.raises(ImageError, match=r"gone\.png: no such image file"):
        classifier_of().predict("gone.png")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="precision must be fp32, bf16 or fp16, got 'int8'"):
        Classifier.load(classifier_file(), precision="int8")


def test_a_classifier_computes_in_half_precision() -> None:
    image = picture()
    exact = by_label(classifier_of().predict(image))
    half = by_label(Classifier.load("model_best.safetensors", device="cpu", precision="bf16").predict(image))
    torch.testing.assert_close(half, exact, rtol=0, atol=0.1)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_its_convolutions_compute_in_the_precision_asked_for(precision: str, expected: torch.dtype) -> None:
    classifier = Classifier.load(classifier_file(), device="cpu", precision=precision)
    used: list[torch.dtype] = []
    classifier.model.body[0].register_forward_hook(lambda *call: used.append(call[-1].dtype))
    classifier.predict(picture())
    assert used == [expected]


def test_a_detectors_file_is_refused() -> None:
    info = WeightsInfo(dump_config(tiny_config()), tuple("abcdef"), tuple(range(NUM_CLASSES)), 4)
    save_weights(Path("detector.safetensors"), tiny_model().state_dict(), info)
    with pytest.raises(WeightsError, match=r"^detector.safetensors: holds a detector and no classifier; use Detector"):
        Classifier.load("detector.safetensors")


def test_a_detector_refuses_a_classifiers_file() -> None:
    path = classifier_file()
    with pytest.raises(WeightsError, match=rf"^{path}: holds a classifier and no detector; use Classifier.load in Py"):
        Detector.load(path)


@pytest.mark.parametrize("thing", [None, 3, b"\xff\xd8\xff", torch.zeros(3, 8, 8), [None], [[0, 1]]])
def test_what_is_no_image_is_refused_with_the_forms_that_are(thing: object) -> None:
    detector = Detector(tiny_model(), tiny_config(), NAMES * 2, range(6), torch.device("cpu"))
    for network in (classifier_of(), detector):
        with pytest.raises(ImageError, match=r"^an image must be a path, a PIL image or a uint8 array, or a list of"):
            network.predict(thing)  # type: ignore[call-overload]


def test_visualize_draws_the_most_probable_classes_and_lists_them() -> None:
    path = classifier_file()
    Image.fromarray(picture()).save("image.png")
    assert visualize([str(path), "image.png", "--output", "look", "--device", "cpu"]) == 0
    answer = Classifier.load(path, device="cpu").predict("image.png")
    [record] = json.loads(Path("look/classifications.json").read_text())
    assert record["image_id"] == "image.png"
    assert tuple(record["names"]) == answer.names
    assert record["probabilities"] == pytest.approx(answer.probabilities.tolist())
    with Image.open("look/image.jpg") as drawn:
        assert drawn.height > 12 * 40  # enlarged, and lines of text below


def test_visualize_draws_each_frame_of_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    path = classifier_file()
    film = cv2.VideoWriter("film.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for seed in range(3):
        film.write(picture(seed, 48, 64))
    film.release()
    assert visualize([str(path), "film.mp4", "--output", "look", "--device", "cpu"]) == 0
    records = json.loads(Path("look/classifications.json").read_text())
    assert [record["image_id"] for record in records] == ["film.mp4#0", "film.mp4#1", "film.mp4#2"]
    assert cv2.VideoCapture("look/film.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert capsys.readouterr().out == "1 of 1 files drawn, 3 classifications: look/\n"


def test_a_network_that_overflows_is_drawn_and_listed_without_classes() -> None:
    weights = read_weights(classifier_file())
    assert weights.info is not None
    weights.tensors["class_layer.weight"].fill_(3e38)
    save_weights(Path("huge.safetensors"), weights.tensors, weights.info)
    Image.fromarray(picture()).save("image.png")
    assert visualize(["huge.safetensors", "image.png", "--output", "look", "--device", "cpu"]) == 0
    [record] = json.loads(Path("look/classifications.json").read_text())
    assert record == {"image_id": "image.png", "names": None, "probabilities": None}


@pytest.mark.parametrize("option", [["--score-threshold", "0.3"], ["--compile"]])
def test_visualize_refuses_options_of_detectors(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(picture()).save("image.png")
    assert visualize([str(classifier_file()), "image.png", *option]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model_best.safetensors: holds a classifier; --score-threshold and --compile are")
    assert error.count("\n") == 1
