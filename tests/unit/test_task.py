"""What a run does differently for a classifier: what ranks its evaluations, and what is told of its training set."""

from __future__ import annotations

import pytest

from detector.data.classification.build import open_labelled
from detector.engine.task import CLASSIFICATION, DETECTION, task_of
from detector.evaluation.classification import Answers, score_classes
from tests.classification_inputs import answers_of
from tests.tiny import tiny_classifier_config, tiny_config


def told(side: int, crop: int) -> list[str]:
    """Of images with a short side, in squares of another."""
    config = tiny_classifier_config(f"data.resize.train_short_side=[{side}, 64]", f"data.crop.size={crop}")
    return CLASSIFICATION.look_at(open_labelled(config, "train"), config)


def test_a_configuration_with_a_classifier_is_one_of_a_classifier() -> None:
    assert task_of(tiny_classifier_config()) is CLASSIFICATION
    assert task_of(tiny_config()) is DETECTION


def test_evaluations_of_classifiers_are_ranked_by_their_top1() -> None:
    metrics = {"classification": {"top1": 0.7, "top5": 0.9, "log_loss": 0.2}}
    assert CLASSIFICATION.headline(metrics, None) == 0.7


def test_of_two_classifiers_the_one_that_is_right_more_often_ranks_first() -> None:
    # Right twice, but with the larger log loss; and never right.
    answers = [answers_of(rows, (0, 0, 0)) for rows in ([(0.9, 0.1)] * 2 + [(0.001, 0.999)], [(0.4, 0.6)] * 3)]
    better, worse = (CLASSIFICATION.headline(score_classes(each, ("a", "b")), None) for each in answers)
    assert better is not None
    assert worse is not None
    assert better > worse


def test_without_an_image_evaluations_have_no_rank() -> None:
    assert CLASSIFICATION.headline(score_classes(Answers.of({}), ("a", "b")), None) is None


@pytest.mark.parametrize(("side", "crop"), [(32, 64), (16, 40)])
def test_a_square_that_images_do_not_half_fill_is_told(side: int, crop: int) -> None:
    [line] = told(side, crop)
    assert f"a short side of {side} and less than half fills the square of {crop}" in line


def test_a_square_that_images_more_than_half_fill_is_not_told() -> None:
    assert told(32, 63) == []
