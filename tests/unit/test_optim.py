"""What is trained and how, and the learning rate as a function of the iteration."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.config import Config
from detector.config.schema import TrainingConfig
from detector.data.build import open_split, training_order
from detector.data.loader import Batch, TrainingBatches
from detector.data.transforms import TrainTransform
from detector.engine.distributed import Processes
from detector.engine.learner import Learner
from detector.engine.optim import build_optimizer, learning_rate, schedule_steps, with_iterations
from detector.errors import ConfigError
from detector.models.classifier import build_classifier
from tests.tiny import tiny_classifier_config, tiny_config, tiny_model

STEPS = "training.schedule={kind: steps, warmup_iterations: 0, factor: 0.1, steps: [60, 80]}"
COSINE = "training.schedule={kind: cosine, warmup_iterations: 0}"


def training(*overrides: str) -> TrainingConfig:
    return tiny_config("training.iterations=100", "training.learning_rate=0.5", *overrides).training


def rates(config: TrainingConfig, *iterations: int) -> list[float]:
    return [learning_rate(config, iteration) for iteration in iterations]


# Learning rate


def test_the_rate_falls_by_its_factor_from_each_step_on() -> None:
    assert rates(training(STEPS), 0, 59, 60, 79, 80, 99) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_steps_may_be_fractions_of_the_training() -> None:
    fractions = training("training.schedule={kind: steps, warmup_iterations: 0, steps: [0.6, 0.8]}")
    assert schedule_steps(fractions) == [60, 80]
    assert rates(fractions, *range(100)) == rates(training(STEPS), *range(100))


@pytest.mark.parametrize(("iterations", "expected"), [(90000, [60000, 80000]), (270000, [180000, 240000]), (7, [5, 6])])
def test_fractions_are_rounded_to_the_nearest_iteration(iterations: int, expected: list[int]) -> None:
    schedule = "training.schedule={kind: steps, steps: [0.6666666667, 0.8888888889]}"
    assert schedule_steps(training(f"training.iterations={iterations}", schedule)) == expected


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("[80, 60]", "steps must rise"),
        ("[60, 60]", "steps must rise"),
        ("[0.5, 60]", "all iterations or all fractions"),
        ("[0]", "training.schedule.steps"),
        ("[0.0]", "training.schedule.steps"),
        ("[1.5]", "training.schedule.steps"),
        ("[-0.5]", "training.schedule.steps"),
    ],
)
def test_steps_that_cannot_be_meant_are_refused(steps: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        training(f"training.schedule={{kind: steps, steps: {steps}}}")
    assert words in str(caught.value)


def test_a_step_at_one_is_an_iteration() -> None:
    assert schedule_steps(training("training.schedule={kind: steps, steps: [1]}")) == [1]


def test_cosine_begins_at_the_full_rate_and_ends_at_zero() -> None:
    assert rates(training(COSINE), 0, 50, 100) == pytest.approx([0.5, 0.25, 0.0])


def test_every_iteration_of_a_cosine_has_a_rate_above_zero() -> None:
    assert min(rates(training(COSINE), *range(100))) > 0


def test_cosine_only_falls() -> None:
    values = rates(training(COSINE), *range(100))
    assert values == sorted(values, reverse=True)


def test_a_constant_rate_is_constant() -> None:
    constant = training("training.schedule={kind: constant, warmup_iterations: 0}")
    assert set(rates(constant, *range(100))) == {0.5}


def test_warm_up_rises_in_a_straight_line() -> None:
    config = training("training.schedule={kind: constant, warmup_iterations: 10, warmup_factor: 0.2}")
    assert rates(config, 0, 5, 10, 11) == pytest.approx([0.1, 0.3, 0.5, 0.5])


def test_warm_up_and_decay_are_multiplied() -> None:
    config = training("training.schedule={kind: steps, warmup_iterations: 10, warmup_factor: 0.0, steps: [4]}")
    assert rates(config, 2, 5) == pytest.approx([0.5 * 0.2, 0.5 * 0.5 * 0.1])


# Epochs


@pytest.mark.parametrize(("epochs", "expected"), [("3", 9), ("1.5", 5), ("0.001", 1), ("1", 3)])
def test_epochs_become_iterations_rounded_up(epochs: str, expected: int) -> None:
    config = tiny_config(f"training.epochs={epochs}", "training.batch_size=4")
    assert with_iterations(config, images=12).training.iterations == expected


def test_the_last_batch_of_an_epoch_counts_though_it_is_not_full() -> None:
    config = tiny_config("training.epochs=1", "training.batch_size=4")
    assert with_iterations(config, images=13).training.iterations == 4


def test_without_epochs_the_iterations_stand() -> None:
    config = tiny_config("training.iterations=7")
    assert with_iterations(config, images=1000) == config


def test_epochs_change_nothing_but_the_iterations() -> None:
    config = tiny_config("training.epochs=5")
    changed = with_iterations(config, images=12)
    training_section = changed.training.model_copy(update={"iterations": config.training.iterations})
    assert changed.model_copy(update={"training": training_section}) == config


def test_epochs_twice_are_epochs_once() -> None:
    once = with_iterations(tiny_config("training.epochs=5"), images=12)
    assert with_iterations(once, images=12) == once


def test_fractions_are_of_the_iterations_that_epochs_make() -> None:
    config = tiny_config("training.epochs=10", "training.schedule={kind: steps, steps: [0.5]}")
    assert schedule_steps(with_iterations(config, images=12).training) == [30]


# Optimiser


def decays(optimizer: torch.optim.Optimizer) -> dict[int, float]:
    """The weight decay of each trained parameter, by its identity."""
    return {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_norms_do_not_decay_and_all_else_does(kind: str) -> None:
    model = tiny_model()
    found = decays(build_optimizer(model, training(f"training.optimizer={kind}", "training.weight_decay=0.25")))
    of_norms = {
        id(value) for module in model.modules() if isinstance(module, nn.GroupNorm) for value in module.parameters()
    }
    assert of_norms
    assert found == {id(value): 0.0 if id(value) in of_norms else 0.25 for value in model.parameters()}


def test_what_is_frozen_is_left_out() -> None:
    model = tiny_model("model.backbone.frozen_stages=2")
    trained = {id(value) for value in model.parameters() if value.requires_grad}
    assert 0 < len(trained) < len(list(model.parameters()))
    assert set(decays(build_optimizer(model, training()))) == trained


def test_frozen_norms_leave_no_empty_group() -> None:
    model = tiny_model("model.backbone.norm=frozen_batch")
    optimizer = build_optimizer(model, training())
    assert all(group["params"] for group in optimizer.param_groups)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_is_the_one_named(name: str, kind: type[torch.optim.Optimizer]) -> None:
    assert type(build_optimizer(tiny_model(), training(f"training.optimizer={name}"))) is kind


def test_momentum_is_that_of_the_configuration() -> None:
    optimizer = build_optimizer(tiny_model(), training("training.optimizer=sgd", "training.momentum=0.7"))
    assert {group["momentum"] for group in optimizer.param_groups} == {0.7}


def test_nesterov_is_that_of_the_configuration() -> None:
    optimizer = build_optimizer(tiny_model(), training("training.optimizer=sgd", "training.nesterov=true"))
    assert {group["nesterov"] for group in optimizer.param_groups} == {True}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_body_alone_gets_its_share_of_the_rate(kind: str) -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, training(f"training.optimizer={kind}", "training.body_rate=0.1"))
    found = {id(value): group["factor"] for group in optimizer.param_groups for value in group["params"]}
    body = {id(value) for part in (model.backbone, model.roi_head.conv5_x) for value in part.parameters()}
    assert found == {id(value): 0.1 if id(value) in body else 1.0 for value in model.parameters()}


@pytest.mark.parametrize("network", ["cifar", "resnet", "lenet", "torchvision:googlenet"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_all_but_the_class_layer_of_a_classifier_gets_the_bodys_share_of_the_rate(kind: str, network: str) -> None:
    overrides = [f"model.classifier={{network: {network}}}", "training.body_rate=0.1", f"training.optimizer={kind}"]
    config = tiny_classifier_config(*overrides, "training.nesterov=false")
    with torch.device("meta"):
        model = build_classifier(config.model, 7)
    optimizer = build_optimizer(model, config.training)
    found = {id(value): group["factor"] for group in optimizer.param_groups for value in group["params"]}
    *body, weight, bias = model.parameters()
    assert (weight.shape[0], bias.shape) == (7, (7,))
    assert found == dict.fromkeys(map(id, body), 0.1) | {id(weight): 1.0, id(bias): 1.0}


def test_an_update_moves_the_body_by_its_share() -> None:
    moved = []
    for factor in (1.0, 0.25):
        config = tiny_config("training.optimizer=sgd", "training.weight_decay=0", f"training.body_rate={factor}")
        learner = Learner(tiny_model(), config.training, torch.device("cpu"), Processes())
        batch = TrainingBatches(
            open_split(config, "train"), training_order(config, open_split(config, "train")),
            TrainTransform(config.data, config.seed), 0, 1, 2,
        )[0]  # fmt: skip
        assert isinstance(batch, Batch)
        names = ("backbone.conv4_x.1.conv2.conv.weight", "rpn.conv.weight")
        before = [learner.model.get_parameter(name).detach().clone() for name in names]
        learner.update([batch], 0, 0.01)
        after = [learner.model.get_parameter(name).detach() for name in names]
        moved.append([new - old for new, old in zip(after, before, strict=True)])
    torch.testing.assert_close(moved[1][0], 0.25 * moved[0][0], rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(moved[1][1], moved[0][1], rtol=1e-3, atol=1e-7)


# Settings that belong together


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.epochs=0"], "training.epochs"),
        (["training.ema_decay=1"], "training.ema_decay"),
        (["training.ema_decay=0"], "training.ema_decay"),
        (["training.on_nonfinite_loss=ignore"], "training.on_nonfinite_loss"),
        (["training.best_metric=coco.AP99"], "training.best_metric"),
        (
            ["training.best_metric=voc07.mAP50"],
            "but evaluation.metrics lacks voc07",
        ),
        (["training.early_stopping_patience=-1"], "training.early_stopping_patience"),
        (["training.early_stopping_patience=2", "training.evaluate_every=0"], "needs evaluations"),
        (["training.keep_every=-1"], "training.keep_every"),
        (["training.keep_checkpoints=1"], "training.keep_checkpoints"),
        (["data.on_bad_sample=drop"], "data.on_bad_sample"),
        (["data.max_bad_fraction=1.5"], "data.max_bad_fraction"),
        (["data.worker_timeout=0"], "data.worker_timeout"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_config(*overrides)
    assert words in str(caught.value)


def test_a_best_metric_that_is_computed_is_taken() -> None:
    config = tiny_config("training.best_metric=voc07.mAP50", "evaluation.metrics=[voc07]")
    assert config.training.best_metric == "voc07.mAP50"


def test_by_default_nothing_is_averaged_skipped_or_stopped_early() -> None:
    training_section, data = Config().training, Config().data
    assert training_section.ema_decay is None
    assert training_section.epochs is None
    assert training_section.on_nonfinite_loss == data.on_bad_sample == "error"
    assert training_section.early_stopping_patience == training_section.keep_every == 0
