from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detector.cli.convert_weights import main as convert
from detector.config import Config, dump_config
from detector.config.schema import ModelConfig
from detector.engine.classification.setup import LoadedClassifier, build_initial_classifier, classifier_of
from detector.engine.setup import build_initial_model, load_model
from detector.errors import WeightsError
from detector.models import resnet
from detector.models.build import build_model
from detector.models.classifier import ClassificationNetwork, build_classifier
from detector.structures import ImageBatch, Target
from detector.weights.classifier import NETWORKS, load_classifier_initial
from detector.weights.initial import load_initial
from detector.weights.layouts import CAFFE, LAYOUTS, OWN, OWN_CLASSIFIER, TORCHVISION, recognise, to_layout
from detector.weights.load import Weights, fill, read_weights
from detector.weights.own_file import WeightsInfo, save_weights
from detector.weights.report import LoadReport
from tests.tiny import tiny_classifier_config, tiny_config

NAMES = ("cat", "dog", "horse")
# The network that a detector can start from, and the detector that does.
RESNET = ("model.classifier.network=resnet", "model.backbone.depth=18")
NARROW = (8, 8, 12, 16)
PIXELS = ("model.pixel_mean=[123.675, 116.28, 103.53]", "model.pixel_std=[58.395, 57.12, 57.375]")
FROZEN = (*PIXELS, "model.backbone.norm=frozen_batch")
GRAY = "model.classifier.channels=1"

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """ResNets of a few channels, but for tests that compare with torchvision's."""
    if "wide" not in request.fixturenames:
        monkeypatch.setattr(resnet, "_WIDTHS", NARROW)


@pytest.fixture
def wide() -> None:
    """ResNets have their true number of channels."""


def load_classifier(path: str | Path) -> LoadedClassifier:
    """The classifier in a file."""
    return classifier_of(read_weights(path))


def one_line(action: Callable[..., object], *arguments: object) -> str:
    """The message of the WeightsError that an action ends in."""
    with pytest.raises(WeightsError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert message.isprintable(), message
    return message


def settings(weights: Path | str, *overrides: str) -> ModelConfig:
    return tiny_classifier_config(f"model.weights={json.dumps(str(weights))}", *overrides).model


def detector_settings(weights: Path | str, *overrides: str) -> ModelConfig:
    return tiny_config(f"model.weights={json.dumps(str(weights))}", *overrides).model


def network_of(*overrides: str, classes: int = 3, seed: int = 0) -> ClassificationNetwork:
    """A classifier in evaluation mode, whose running statistics are not those of a new one."""
    torch.manual_seed(seed)
    model = build_classifier(tiny_classifier_config(*overrides).model, classes).eval()
    for key, value in model.state_dict().items():
        if "running" in key:
            value.copy_(torch.rand_like(value) + 0.5)
    return model


def detector_of(*overrides: str) -> nn.Module:
    config = tiny_config(*overrides)
    torch.manual_seed(7)
    return build_model(config.model, 2, config.evaluation).eval()


def save(path: Path | str, model: nn.Module, config: Config, names: tuple[str, ...] = NAMES) -> Path:
    info = WeightsInfo(dump_config(config), names, tuple(range(len(names))), 1200)
    save_weights(Path(path), model.state_dict(), info)
    return Path(path)


def saved(*overrides: str, path: str = "model_best.safetensors") -> Path:
    """A weights file of a classifier."""
    return save(path, network_of(*overrides), tiny_classifier_config(*overrides))


def filled(source: Path | str, *overrides: str, classes: int = 3) -> tuple[ClassificationNetwork, LoadReport]:
    """A classifier that starts from weights."""
    model = network_of(*overrides, classes=classes, seed=1)
    report = load_classifier_initial(model, settings(source, *overrides))
    assert report is not None
    return model, report


def batch() -> ImageBatch:
    torch.manual_seed(3)
    return ImageBatch.of([torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)])


def differing(model: nn.Module, state: State) -> set[str]:
    """The keys whose tensors differ from those given."""
    return {key for key, value in model.state_dict().items() if not torch.equal(value, state[key])}


def test_a_class_layer_for_other_classes_starts_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detector")
    path = saved(*RESNET)
    config = tiny_classifier_config(*RESNET, f"model.weights={path}", "seed=1")
    others = build_initial_classifier(config, ("bus", "cat", "dog"), fresh=True)
    assert differing(others, read_weights(path).tensors) == {"class_layer.weight"}  # biases begin at zero
    assert "is for other classes ('cat, dog, horse'): its class layers are left out" in caplog.text
    assert "all layers taken but the class layer, which starts from random values" in caplog.text


def test_a_class_layer_for_the_same_classes_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detector")
    path = saved(*RESNET)
    same = build_initial_classifier(tiny_classifier_config(*RESNET, f"model.weights={path}"), NAMES, fresh=True)
    assert differing(same, read_weights(path).tensors) == set()
    assert "all layers taken, with the class layer" in caplog.text


@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
def test_frozen_batch_norms_of_a_classic_network_stay_as_they_came(norm: str) -> None:
    override = ("model.classifier.network=torchvision:googlenet", f"model.backbone.norm={norm}")
    names = [f"{number}" for number in range(3)]
    config = tiny_classifier_config(*override, "model.weights=a.pth")
    model = build_initial_classifier(config, names, fresh=False).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    targets = [Target(torch.zeros(1, 4), torch.tensor([label]), 0) for label in range(2)]
    model(batch(), targets)["loss_class"].backward()
    frozen = norm == "frozen_batch"
    assert (differing(model, model.state_dict() | before) == set()) == frozen
    assert all((module.weight.grad is None) == frozen for module in norms)


# The bridge: a detector starts from a classifier.


def test_a_detector_has_the_features_of_the_classifier_it_starts_from() -> None:
    path = saved(*RESNET)
    detector = detector_of(*FROZEN)
    load_initial(detector, detector_settings(path, *FROZEN))
    classifier = network_of(*RESNET)
    pixels = classifier.normalize(batch().pixels)
    features = pixels
    for part in classifier.body:
        features = part(features)
    assert isinstance(detector.backbone, resnet.ResNetC4)
    theirs = detector.roi_head.conv5_x(detector.backbone(pixels))
    torch.testing.assert_close(theirs, features)


def test_running_statistics_of_a_batch_norm_become_those_of_a_frozen_one() -> None:
    detector = detector_of(*FROZEN)
    load_initial(detector, detector_settings(saved(*RESNET), *FROZEN))
    wanted = network_of(*RESNET).state_dict()["backbone.conv1.norm.running_var"]
    torch.testing.assert_close(detector.state_dict()["backbone.conv1.norm.running_var"], wanted, rtol=0, atol=0)


def test_all_but_conv1_to_conv5_x_of_a_detector_stays_random() -> None:
    detector = detector_of(*FROZEN)
    before = copy.deepcopy(detector.state_dict())
    report = load_initial(detector, detector_settings(saved(*RESNET), *FROZEN))
    assert report is not None
    stages = {key for key in before if key.startswith(("backbone.", "roi_head.conv5_x."))}
    assert set(report.matched) == stages
    assert differing(detector, before) <= stages


def test_the_log_says_what_a_detector_took(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detector")
    path = saved(*RESNET)
    load_initial(detector_of(*FROZEN), detector_settings(path, *FROZEN))
    # 20 convolutions, and 20 norms of four tensors.
    assert (
        f"{path}: a classifier of 3 classes (ResNet-18, iteration 1200): conv1 to conv5_x taken (100 tensors); the RPN "
        "and the class and box layers start from random values"
    ) in caplog.text


def test_a_run_of_a_detector_starts_from_a_classifier() -> None:
    path = saved(*RESNET)
    config = tiny_config(f"model.weights={path}", *FROZEN)
    wanted = network_of(*RESNET).state_dict()["conv5_x.1.conv2.conv.weight"]
    found = build_initial_model(config, ("cat", "dog"), fresh=True).state_dict()["roi_head.conv5_x.1.conv2.conv.weight"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ((), "network cifar, from which a detector cannot start; pretrain with model.classifier.network=resnet"),
        (
            (*RESNET, "model.classifier.block=plain"),
            "block plain, from which a detector cannot start; pretrain with model.classifier.block=residual",
        ),
        (
            (*RESNET, "model.classifier.block=preactivation", "model.classifier.activation=elu"),
            "block preactivation, from which a detector cannot start; pretrain with model.classifier.block=residual",
        ),
        (
            (*RESNET, "model.classifier.shortcut=padding"),
            "shortcut padding, from which a detector cannot start; pretrain with model.classifier.shortcut=projection",
        ),
        (
            (*RESNET, GRAY),
            "channels 1, from which a detector cannot start; pretrain with model.classifier.channels=3",
        ),
    ],
    ids=["cifar", "plain", "preactivation", "padding", "gray"],
)
def test_a_detector_starts_from_no_other_classifier(overrides: tuple[str, ...], problem: str) -> None:
    path = saved(*overrides)
    message = one_line(load_initial, nn.Linear(1, 1), detector_settings(path, *FROZEN))
    assert message == f"{path}: is a classifier with {problem}"


def test_a_detector_of_another_depth_is_refused() -> None:
    path, deeper = saved(*RESNET), (*FROZEN, "model.backbone.depth=34")
    message = one_line(load_initial, detector_of(*deeper), detector_settings(path, *deeper))
    assert message == f"{path}: does not fit the model: model.backbone.depth is 34, the weights are of depth 18"


def test_pixels_that_the_classifier_did_not_see_are_refused() -> None:
    path, other = saved(*RESNET), (*FROZEN, "model.pixel_order=bgr")
    message = one_line(load_initial, nn.Linear(1, 1), detector_settings(path, *other))
    assert message == f"{path}: model.pixel_order is bgr, but these weights need rgb"


def test_a_norm_that_the_classifier_did_not_have_is_refused() -> None:
    path = saved(*RESNET)
    message = one_line(load_initial, nn.Linear(1, 1), detector_settings(path, *PIXELS))
    assert message == f"{path}: model.backbone.norm is group, but these weights need frozen_batch or batch"


def test_a_classifier_does_not_detect() -> None:
    path = saved()
    assert one_line(load_model, path).startswith(f"{path}: holds a classifier and no detector; use Classifier.load")


# Fine-tuning: a classifier starts from a classifier.


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.classifier.block=plain", "model.backbone.norm=group"),
        ("model.classifier.block=preactivation", "model.classifier.activation=elu"),
        ("model.classifier.network=lenet",),
        (GRAY,),
        RESNET,
        (*RESNET, "model.classifier.block=preactivation"),
        (*RESNET, "model.classifier.block=plain", "model.backbone.depth=50"),
    ],
    ids=["cifar", "plain", "preactivation", "lenet", "gray", "resnet", "preactivation resnet", "plain resnet-50"],
)
def test_of_the_same_classes_a_classifier_takes_every_tensor(overrides: tuple[str, ...]) -> None:
    path = saved(*overrides)
    model, report = filled(path, *overrides)
    assert differing(model, network_of(*overrides).state_dict()) == set()
    assert (report.missing, report.unexpected, report.wrong_shape) == ((), (), ())


def test_for_another_number_of_classes_the_class_layer_alone_stays_random() -> None:
    path = saved(*RESNET)
    model, report = filled(path, *RESNET, classes=5)
    fresh = network_of(*RESNET, classes=5, seed=1).state_dict()
    assert set(report.matched) == {key for key in fresh if not key.startswith("class_layer.")}
    torch.testing.assert_close(model.state_dict()["class_layer.weight"], fresh["class_layer.weight"], rtol=0, atol=0)


def test_a_class_layer_that_stays_random_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detector")
    path = saved()
    filled(path, classes=5)
    assert "another shape: class_layer.weight is (3, 64), the model wants (5, 64)" in caplog.text
    assert f"{path}: all layers taken but the class layer, which starts from random values" in caplog.text


def test_a_network_for_gray_images_sums_conv1_over_the_colours(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detector")
    path = saved()
    model, _ = filled(path, GRAY)
    wanted = network_of().state_dict()["backbone.conv1.conv.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(model.state_dict()["backbone.conv1.conv.weight"], wanted)
    assert f"{path}: the weights of the first convolution are summed over the three colours" in caplog.text


def test_gray_images_give_the_logits_that_they_gave_in_colour() -> None:
    # Where all colours are normalised alike.
    grayish = ("model.pixel_mean=[120, 120, 120]", "model.pixel_std=[60, 60, 60]")
    model, _ = filled(saved(*grayish), *grayish, GRAY)
    gray = torch.randint(0, 256, (1, 32, 32), dtype=torch.uint8).expand(3, 32, 32)
    images = ImageBatch.of([gray])
    torch.testing.assert_close(model.classify(images), network_of(*grayish).classify(images))


def test_colours_do_not_fit_a_network_for_gray_images() -> None:
    path = saved(GRAY)
    message = one_line(filled, path)
    assert message == (
        f"{path}: does not fit the model: backbone.conv1.conv.weight is (16, 1, 3, 3), the model wants (16, 3, 3, 3)"
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "problem"),
    [
        ((), RESNET, "model.classifier.network is resnet, but these weights need cifar"),
        (
            (),
            ("model.classifier.network=torchvision:alexnet",),
            "model.classifier.network is torchvision:alexnet, but these weights need cifar",
        ),
        ((), ("model.classifier.depth=14",), "model.classifier.depth is 14, but these weights need 8"),
        ((), ("model.classifier.block=plain",), "model.classifier.block is plain, but these weights need residual"),
        (
            (),
            ("model.classifier.shortcut=projection",),
            "model.classifier.shortcut is projection, but these weights need padding",
        ),
        (RESNET, (*RESNET, "model.backbone.depth=34"), "model.backbone.depth is 34, but these weights need 18"),
        (
            ("model.classifier.block=preactivation", "model.classifier.activation=elu"),
            ("model.classifier.block=preactivation",),
            "model.classifier.activation is relu, but these weights need elu",
        ),
        ((), ("model.pixel_order=bgr",), "model.pixel_order is bgr, but these weights need rgb"),
        (
            (),
            ("model.backbone.norm=group",),
            "model.backbone.norm is group, but these weights need frozen_batch or batch",
        ),
    ],
)
def test_a_classifier_of_another_kind_is_refused(theirs: tuple[str, ...], ours: tuple[str, ...], problem: str) -> None:
    path = saved(*theirs)
    assert one_line(load_classifier_initial, nn.Linear(1, 1), settings(path, *ours)) == f"{path}: {problem}"


def test_the_depth_of_the_detectors_backbone_does_not_matter_to_other_networks() -> None:
    model, _ = filled(saved(), "model.backbone.depth=152", "model.backbone.stride_in_1x1=true")
    assert differing(model, network_of().state_dict()) == set()


def test_a_classifier_with_a_nan_is_refused() -> None:
    model = network_of()
    model.state_dict()["class_layer.bias"].fill_(float("nan"))
    path = save("nan.safetensors", model, tiny_classifier_config())
    assert one_line(filled, path) == f"{path}: class_layer.bias holds NaN or infinity"


# Fine-tuning: a classifier starts from a detector or from files of other toolkits.


def test_a_classifier_takes_the_stages_of_a_detector() -> None:
    detector = detector_of(*FROZEN)
    path = save("detector.safetensors", detector, tiny_config(*FROZEN), NAMES[:2])
    frozen = (*RESNET, "model.backbone.norm=frozen_batch")
    model, report = filled(path, *frozen)
    assert report.missing == ("class_layer.weight", "class_layer.bias")
    wanted = detector.state_dict()["roi_head.conv5_x.0.shortcut.conv.weight"]
    torch.testing.assert_close(model.state_dict()["conv5_x.0.shortcut.conv.weight"], wanted, rtol=0, atol=0)


def test_a_network_for_small_images_cannot_start_from_a_detector() -> None:
    path = save("detector.safetensors", detector_of(*FROZEN), tiny_config(*FROZEN), NAMES[:2])
    message = one_line(load_classifier_initial, nn.Linear(1, 1), settings(path))
    assert message == f"{path}: model.classifier.network is cifar, but these weights need resnet"


@pytest.fixture(scope="module")
def resnet18() -> torchvision.models.ResNet:
    """torchvision's with random weights, for three classes."""
    torch.manual_seed(2)
    model = torchvision.models.resnet18(num_classes=3)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("norm", ["batch", "frozen_batch"])
def test_a_resnet_of_torchvision_gives_its_own_logits(resnet18: torchvision.models.ResNet, norm: str) -> None:
    torch.save(resnet18.state_dict(), "resnet18.pth")
    model, report = filled("resnet18.pth", *RESNET, f"model.backbone.norm={norm}")
    assert (report.missing, report.wrong_shape) == ((), ())
    images = batch()
    torch.testing.assert_close(model.classify(images), resnet18(model.normalize(images.pixels)), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("wide")
def test_a_resnet_of_torchvision_for_other_classes_lends_all_but_fc(resnet18: torchvision.models.ResNet) -> None:
    torch.save(resnet18.state_dict(), "resnet18.pth")
    _, report = filled("resnet18.pth", *RESNET, classes=5)
    assert report.wrong_shape == (
        "class_layer.weight is (3, 512), the model wants (5, 512)",
        "class_layer.bias is (3,), the model wants (5,)",
    )


@pytest.mark.usefixtures("wide")
def test_a_resnet_of_torchvision_has_projections(resnet18: torchvision.models.ResNet) -> None:
    torch.save(resnet18.state_dict(), "resnet18.pth")
    message = one_line(
        load_classifier_initial, nn.Linear(1, 1), settings("resnet18.pth", *RESNET, "model.classifier.shortcut=padding")
    )
    assert message == "resnet18.pth: model.classifier.shortcut is padding, but these weights need projection"


@pytest.mark.usefixtures("wide")
def test_a_resnet_of_another_depth_is_refused(resnet18: torchvision.models.ResNet) -> None:
    torch.save(resnet18.state_dict(), "resnet18.pth")
    deeper = (*RESNET, "model.backbone.depth=34")
    with torch.device("meta"):
        model = build_classifier(tiny_classifier_config(*deeper).model, 3)
    message = one_line(load_classifier_initial, model, settings("resnet18.pth", *deeper))
    assert message.endswith("model.backbone.depth is 34, the weights are of depth 18")


def test_a_backbone_of_caffe_is_taken() -> None:
    bgr = ("model.pixel_order=bgr", "model.pixel_mean=[103.53, 116.28, 123.675]", "model.pixel_std=[1, 1, 1]")
    deep = (*RESNET, "model.backbone.depth=50", "model.backbone.stride_in_1x1=true")
    detector = detector_of(*FROZEN, "model.backbone.depth=50")
    tensors = to_layout(CAFFE, detector.state_dict(), tiny_config().model.anchors)
    torch.save({name: value for name, value in tensors.items() if "." not in name}, "R-50.pth")
    model, report = filled("R-50.pth", *deep, *bgr, "model.backbone.norm=frozen_batch")
    assert report.missing == ("class_layer.weight", "class_layer.bias")
    wanted = detector.state_dict()["backbone.conv4_x.5.conv2.conv.weight"]
    torch.testing.assert_close(model.state_dict()["backbone.conv4_x.5.conv2.conv.weight"], wanted, rtol=0, atol=0)


# The classic networks of torchvision.

MINUS_ONE_TO_ONE = ("model.pixel_mean=[127.5, 127.5, 127.5]", "model.pixel_std=[127.5, 127.5, 127.5]")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_classic_network_has_the_tensors_of_torchvisions(name: str) -> None:
    arguments = {"init_weights": False} if "ception" in name or "googlenet" in name else {}
    with torch.device("meta"):
        ours = build_classifier(tiny_classifier_config(f"model.classifier.network={name}").model, 1000).state_dict()
        theirs = torchvision.models.get_model(name.removeprefix("torchvision:"), **arguments).state_dict()
    names = NETWORKS[name].names(ours)
    assert {names[key]: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items() if not key.startswith(("aux", "AuxLogits"))
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_a_classic_network_is_recognised_and_no_other(name: str) -> None:
    arguments = {"init_weights": False} if "ception" in name or "googlenet" in name else {}
    with torch.device("meta"):
        keys = torchvision.models.get_model(name.removeprefix("torchvision:"), **arguments).state_dict()
    assert recognise(keys, (*LAYOUTS, *NETWORKS.values())) is NETWORKS[name]


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg19", "vgg16_bn", "squeezenet1_0", "densenet121"])
def test_the_relatives_of_classic_networks_are_not_taken_for_them(name: str) -> None:
    with torch.device("meta"):
        keys = torchvision.models.get_model(name).state_dict()
    assert recognise(keys, (*LAYOUTS, *NETWORKS.values())) is None


def test_a_googlenet_of_torchvision_gives_its_own_logits() -> None:
    torch.manual_seed(2)
    theirs = torchvision.models.googlenet(num_classes=3, transform_input=True, init_weights=False).eval()
    torch.save(theirs.state_dict(), "googlenet.pth")
    overrides = ("model.classifier.network=torchvision:googlenet", *MINUS_ONE_TO_ONE)
    model, report = filled("googlenet.pth", *overrides)
    assert {name.split(".")[0] for name in report.unexpected} == {"aux1", "aux2"}
    # It turns the pixels that torchvision documents for its weights to -1 .. 1 by itself.
    documented = network_of().normalize(batch().pixels)
    torch.testing.assert_close(model.classify(batch()), theirs(documented), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_classic_network_for_other_classes_keeps_a_random_class_layer_and_nothing_else(name: str) -> None:
    config = tiny_classifier_config(f"model.classifier={{network: {name}}}").model
    with torch.device("meta"):
        theirs, ours = (build_classifier(config, classes) for classes in (3, 5))
    # A single zero each, however large they are.
    tensors = {key: torch.zeros(()).expand(value.shape) for key, value in theirs.state_dict().items()}
    report = fill(ours, config, Weights("a", OWN_CLASSIFIER, tensors), renew_classes=True)
    *_, weight, bias = ours.state_dict()
    assert [line.split(" is ")[0] for line in report.wrong_shape] == [weight, bias]
    assert (report.missing, report.unexpected) == ((), ())


@pytest.mark.parametrize("classes", [3, 5])
def test_a_fine_tuned_googlenet_takes_its_class_layer_for_the_same_classes_alone(classes: int) -> None:
    googlenet = "model.classifier={network: 'torchvision:googlenet'}"
    model, _ = filled(saved(googlenet), googlenet, classes=classes)
    fresh = network_of(googlenet, classes=classes, seed=1).state_dict()
    given = read_weights("model_best.safetensors").tensors
    for key, wanted in (("conv1.conv.weight", given), ("fc.weight", given if classes == 3 else fresh)):
        found = model.state_dict()[f"network.{key}"]
        torch.testing.assert_close(found, wanted[f"network.{key}"], rtol=0, atol=0)


def test_a_classic_network_wants_the_pixels_of_its_weights() -> None:
    torch.save({"inception3a.branch1.conv.weight": torch.zeros(1)}, "googlenet.pth")
    googlenet = "model.classifier.network=torchvision:googlenet"
    with pytest.raises(WeightsError) as caught:
        load_classifier_initial(nn.Linear(1, 1), settings("googlenet.pth", googlenet))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("but these weights need [127.5, 127.5, 127.5]")
    assert [line.split()[1] for line in lines] == ["model.pixel_mean", "model.pixel_std"]


def test_a_file_of_a_classic_network_does_not_fit_a_resnet() -> None:
    torch.save({"inception3a.branch1.conv.weight": torch.zeros(1)}, "googlenet.pth")
    message = one_line(load_classifier_initial, nn.Linear(1, 1), settings("googlenet.pth", *RESNET))
    assert message == (
        "googlenet.pth: model.classifier.network is resnet, but these weights need torchvision:googlenet"
    )


# Names of torchvision.


def start_from(name: str, *overrides: str) -> str:
    return one_line(load_classifier_initial, nn.Linear(1, 1), settings(f"torchvision:{name}", *overrides))


@pytest.mark.usefixtures("wide")
def test_weights_are_taken_by_their_name(cache: Path, resnet18: torchvision.models.ResNet) -> None:
    name = "ResNet18_Weights.IMAGENET1K_V1"
    torch.save(resnet18.state_dict(), cache / Path(torchvision.models.get_weight(name).url).name)
    model, _ = filled(f"torchvision:{name}", *RESNET)
    wanted = resnet18.state_dict()["fc.weight"]
    torch.testing.assert_close(model.state_dict()["class_layer.weight"], wanted, rtol=0, atol=0)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("alexnet", "AlexNet_Weights.IMAGENET1K_V1"),
        ("vgg16", "VGG16_Weights.IMAGENET1K_V1"),
        ("googlenet", "GoogLeNet_Weights.IMAGENET1K_V1"),
        ("inception_v3", "Inception_V3_Weights.IMAGENET1K_V1"),
    ],
)
def test_each_classic_network_has_weights_of_its_own(network: str, name: str) -> None:
    pixels = MINUS_ONE_TO_ONE if network in ("googlenet", "inception_v3") else ()
    message = start_from(name, f"model.classifier.network=torchvision:{network}", *pixels)
    assert f"model.weights: {name} cannot be downloaded" in message


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["VGG16_Weights.IMAGENET1K_FEATURES", "ResNet18_Weights.IMAGENET1K_V1"])
def test_weights_that_are_not_the_networks_are_refused(name: str) -> None:
    message = start_from(name, "model.classifier.network=torchvision:vgg16")
    assert message == (
        f"model.weights: torchvision has no vgg16 weights '{name}'; did you mean VGG16_Weights.IMAGENET1K_V1?"
    )


@pytest.mark.parametrize("network", ["cifar", "lenet"])
def test_networks_that_torchvision_does_not_have_cannot_start_from_it(network: str) -> None:
    assert start_from("ResNet18_Weights.IMAGENET1K_V1", f"model.classifier.network={network}") == (
        f"model.weights: torchvision has no weights of network {network}; set model.weights to a file, or to null"
    )


@pytest.mark.usefixtures("cache")
def test_other_blocks_are_found_before_anything_is_downloaded() -> None:
    name = "ResNet18_Weights.IMAGENET1K_V1"
    assert start_from(name, *RESNET, "model.classifier.block=plain") == (
        f"torchvision:{name}: model.classifier.block is plain, but these weights need residual"
    )


# The start of a run, and files of trained classifiers.


def test_random_weights_follow_the_seed() -> None:
    config = tiny_classifier_config()
    first = build_initial_classifier(config, NAMES, fresh=True)
    torch.rand(1)
    assert differing(build_initial_classifier(config, NAMES, fresh=True), first.state_dict()) == set()


def test_a_run_that_goes_on_does_not_look_at_model_weights() -> None:
    build_initial_classifier(tiny_classifier_config("model.weights=gone.pth"), NAMES, fresh=False)


@pytest.mark.parametrize(
    "overrides", [("model.backbone.norm=frozen_batch",), ("model.backbone.frozen_stages=[conv1]",)]
)
def test_random_layers_that_never_learn_are_warned_of(
    overrides: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    build_initial_classifier(tiny_classifier_config(*overrides), NAMES, fresh=True)
    assert "random layers that never learn" in caplog.text


def test_networks_without_stages_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_classifier_config("model.classifier.network=lenet", "model.backbone.norm=frozen_batch")
    build_initial_classifier(config, NAMES, fresh=True)
    assert caplog.text == ""


@pytest.mark.parametrize("overrides", [(), (GRAY,), ("model.classifier.network=lenet",), RESNET])
def test_a_saved_classifier_comes_back(overrides: tuple[str, ...]) -> None:
    loaded = load_classifier(saved(*overrides))
    assert differing(loaded.model, network_of(*overrides).state_dict()) == set()
    assert loaded.info.class_names == NAMES
    assert loaded.config == tiny_classifier_config(*overrides)


def test_a_file_is_a_classifiers_by_its_settings() -> None:
    detector = save("detector.safetensors", detector_of(), tiny_config(), NAMES[:2])
    assert read_weights(saved()).layout is OWN_CLASSIFIER
    assert read_weights(detector).layout is OWN


def test_a_detector_is_no_classifier() -> None:
    path = save("detector.safetensors", detector_of(), tiny_config(), NAMES[:2])
    assert one_line(load_classifier, path).startswith(f"{path}: holds a detector and no classifier; use Detector.load")


def test_a_file_without_class_names_is_no_classifier() -> None:
    torch.save({key: torch.zeros(1) for key in TORCHVISION.marks}, "resnet18.pth")
    message = one_line(load_classifier, "resnet18.pth")
    assert message.startswith("resnet18.pth: is of another toolkit (torchvision layout) and does not name its classes")


def test_settings_of_a_network_much_larger_than_the_file_are_refused() -> None:
    names = tuple(f"class {number}" for number in range(60_000))
    path = save(
        "hollow.safetensors", network_of(), tiny_classifier_config("model.classifier.network=torchvision:vgg16"), names
    )
    assert "its settings describe a network of 380080544 numbers, it holds" in one_line(load_classifier, path)


def test_tensors_of_another_network_than_the_settings_describe_are_refused() -> None:
    path = save("odd.safetensors", network_of(), tiny_classifier_config("model.classifier.depth=14"))
    assert "does not fit the model: backbone.conv2_x.1.conv1.conv.weight is missing" in one_line(load_classifier, path)


# To torchvision.


@pytest.mark.usefixtures("wide")
def test_torchvision_loads_a_converted_classifier_strictly(resnet18: torchvision.models.ResNet) -> None:
    path = saved(*RESNET)
    assert convert([str(path), "resnet18.pth", "--to", "torchvision"]) == 0
    theirs = copy.deepcopy(resnet18)
    theirs.load_state_dict(torch.load("resnet18.pth", weights_only=True), strict=True)
    ours, images = network_of(*RESNET), batch()
    torch.testing.assert_close(theirs(ours.normalize(images.pixels)), ours.classify(images), rtol=1e-5, atol=1e-5)


def test_the_certificate_of_a_classifier_compares_its_logits() -> None:
    assert convert([str(saved(*RESNET)), "resnet18.pth", "--to", "torchvision"]) == 0
    certificate = json.loads(Path("resnet18.pth.certificate.json").read_text())
    # 20 convolutions, 20 norms of five tensors (one counts the batches), and the two of the class layer.
    assert certificate["tensors"] == {"compared": 122, "bit_equal": 122}
    assert certificate["stages"]["class_logits"]["largest_difference"] == 0


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ((), "network cifar"),
        ((*RESNET, "model.classifier.block=plain"), "block plain"),
        ((*RESNET, "model.classifier.shortcut=padding"), "shortcut padding"),
        ((*RESNET, GRAY), "channels 1"),
        ((*RESNET, "model.backbone.norm=group"), "norm group"),
    ],
)
def test_a_classifier_that_torchvision_does_not_have_is_not_converted(
    overrides: tuple[str, ...], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(*overrides)
    assert convert([str(path), "out.pth", "--to", "torchvision"]) == 2
    assert capsys.readouterr().err == f"error: {path}: is a classifier with {what}, which torchvision does not have\n"
    assert not Path("out.pth").exists()


@pytest.mark.parametrize("to", ["detector", "detectron2"])
def test_a_classifier_is_converted_to_torchvision_alone(to: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert([str(saved()), "out.safetensors", "--to", to]) == 2
    assert "holds a classifier, which is converted with --to torchvision alone" in capsys.readouterr().err
