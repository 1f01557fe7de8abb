"""The metrics of a classifier, by hand and by laws."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from detector.evaluation.classification import (
    LARGEST_LOSS,
    NOTHING,
    Answers,
    format_classification,
    judge,
    score_classes,
    top1,
)
from detector.evaluation.classification_analysis import (
    analyse_classes,
    calibration,
    confused_pairs,
    confusion_counts,
    wilson_interval,
)
from tests.classification_inputs import answers_of, evaluate, labelled

NAMES = ("cat", "dog", "cow")
# The second image is taken for a dog, the third has its class in the last place.
PROBABILITIES = ((0.7, 0.2, 0.1), (0.4, 0.5, 0.1), (0.6, 0.3, 0.1), (0.25, 0.5, 0.25))
LABELS = (0, 0, 2, 1)
NAN = float("nan")


def logs_and_labels(classes: int) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Logarithms of probabilities, many of them equal, with labels."""
    steps = arrays.arrays(np.float64, (7, classes), elements=st.integers(-3, 0).map(float))
    return st.tuples(steps, arrays.arrays(np.int64, 7, elements=st.integers(0, classes - 1)))


def test_top1_is_the_share_of_images_whose_class_is_largest() -> None:
    assert top1(score_classes(answers_of(PROBABILITIES, LABELS), NAMES)) == 0.5


def test_log_loss_is_the_mean_of_minus_log_of_the_true_class() -> None:
    metrics = score_classes(answers_of(PROBABILITIES, LABELS), NAMES)
    by_hand = -(math.log(0.7) + math.log(0.4) + math.log(0.1) + math.log(0.5)) / 4
    assert metrics["classification"]["log_loss"] == pytest.approx(by_hand, abs=1e-12)


def test_ranks_count_larger_classes() -> None:
    assert answers_of(PROBABILITIES, LABELS).ranks.tolist() == [1, 2, 3, 1]


def test_of_equal_classes_the_smaller_label_comes_first() -> None:
    assert answers_of([(0.3, 0.3, 0.3)] * 3, (0, 1, 2)).ranks.tolist() == [1, 2, 3]


def test_of_equal_classes_the_smaller_label_is_predicted() -> None:
    assert answers_of([(0.2, 0.4, 0.4)], (2,)).predicted.tolist() == [1]


def test_accuracy_of_a_class_is_of_its_own_images() -> None:
    metrics = score_classes(answers_of(PROBABILITIES, LABELS), NAMES)
    assert metrics["per_class"]["cat"] == {"images": 2, "accuracy": 0.5}


def test_a_class_without_images_has_no_accuracy() -> None:
    metrics = score_classes(answers_of(PROBABILITIES[:1], (0,)), NAMES)
    assert metrics["per_class"]["cow"] == {"images": 0, "accuracy": None}


def test_top5_of_two_classes_is_top2() -> None:
    metrics = score_classes(answers_of([(0.9, 0.1)], (1,)), ("a", "b"))
    assert metrics["classification"] == pytest.approx({"top1": 0.0, "top5": 1.0, "log_loss": -math.log(0.1)})


def test_the_sixth_place_is_not_among_five() -> None:
    steps = (0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05)
    metrics = score_classes(answers_of([steps] * 2, (4, 5)), tuple("abcdefg"))
    assert metrics["classification"]["top5"] == 0.5


def test_a_probability_of_zero_costs_a_bounded_loss() -> None:
    assert answers_of([(1.0, 0.0)], (1,)).losses.tolist() == [LARGEST_LOSS]


def test_a_certain_answer_costs_nothing() -> None:
    assert str(answers_of([(1.0, 0.0)], (0,)).losses.tolist()) == "[0.0]"


def test_no_image_defines_no_number() -> None:
    metrics = score_classes(Answers.of({}), NAMES)
    assert metrics["classification"] == {"top1": None, "top5": None, "log_loss": None}
    assert metrics["images"] == 0


def test_an_image_without_numbers_is_wrong_in_every_metric() -> None:
    answers = answers_of([(NAN, 0.5), (0.9, 0.1)], (0, 0))
    assert answers.predicted.tolist() == [NOTHING, 0]
    metrics = score_classes(answers, ("a", "b"))["classification"]
    assert metrics == pytest.approx({"top1": 0.5, "top5": 0.5, "log_loss": (LARGEST_LOSS - math.log(0.9)) / 2})


def test_answers_stand_in_the_order_of_the_images() -> None:
    first, second = judge(np.log([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
    assert Answers.of({8: second, 3: first}).indices.tolist() == [3, 8]
    assert Answers.of({8: second, 3: first}).predicted.tolist() == [0, 1]


def test_metrics_of_a_network_without_numbers_can_be_written() -> None:
    answers = answers_of([(NAN, NAN)] * 3, (0, 1, 1))
    analysis = analyse_classes(answers, labelled((0, 1, 1), ("a", "b")))
    json.dumps([score_classes(answers, ("a", "b")), analysis], allow_nan=False)
    assert [sentence for sentence in analysis["warnings"] if "NaN" in sentence and "3 of 3 images" in sentence]


def test_a_network_that_always_says_the_same_is_named() -> None:
    answers = answers_of([(0.6, 0.3, 0.1)] * 2, (0, 1))
    warnings = analyse_classes(answers, labelled((0, 1), NAMES))["warnings"]
    assert "every image is taken for 'cat', whatever it shows: the network tells nothing apart" in warnings


def test_images_that_could_not_be_read_are_counted() -> None:
    analysis = analyse_classes(answers_of(PROBABILITIES, LABELS), labelled((*LABELS, 1), NAMES))
    assert analysis["warnings"] == ["1 of 5 images cannot be read and are left out of all numbers"]


def test_pairs_name_true_and_predicted_class_the_most_frequent_first() -> None:
    answers = answers_of([(0.2, 0.8), (0.9, 0.1), (0.9, 0.1), (0.9, 0.1)], (0, 1, 1, 0))
    assert confused_pairs(answers) == [(1, 0, 2), (0, 1, 1)]


def test_the_table_of_confusion_has_true_classes_as_rows() -> None:
    confusion = analyse_classes(answers_of(PROBABILITIES, LABELS), labelled(LABELS, NAMES))["confusion"]
    assert confusion == {"names": list(NAMES), "others": 0, "table": [[1, 1, 0], [0, 1, 0], [1, 0, 0]]}


def test_of_many_classes_the_most_confused_are_compared() -> None:
    names = tuple(f"class {label}" for label in range(100))
    right = np.eye(100) * 0.9 + 0.001
    answers = answers_of([*right.tolist(), right[70].tolist()], [*range(100), 50])
    confusion = analyse_classes(answers, labelled([*range(100), 50], names))["confusion"]
    assert len(confusion["names"]) == 41
    assert {"class 50", "class 70", "60 others"} <= set(confusion["names"])
    assert int(np.sum(confusion["table"])) == 101


def test_every_cell_of_the_confusion_is_counted_by_names() -> None:
    analysis = analyse_classes(answers_of(PROBABILITIES, LABELS), labelled(LABELS, NAMES))
    wanted = [["cat", "cat", 1], ["cat", "dog", 1], ["dog", "dog", 1], ["cow", "cat", 1]]
    assert analysis["confusion_counts"] == wanted


def test_images_without_numbers_are_counted_under_no_class() -> None:
    answers = answers_of([(NAN, NAN), (0.9, 0.1), (NAN, NAN), (0.1, 0.9)], (1, 1, 1, 1))
    analysis = analyse_classes(answers, labelled((1, 1, 1, 1), ("a", "b")))
    assert analysis["confusion_counts"] == [["b", None, 2], ["b", "a", 1], ["b", "b", 1]]


def test_the_confusion_of_a_thousand_classes_is_whole() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 1000, 1_300_000)
    predicted = np.where(random.random(len(labels)) < 0.8, labels, random.integers(0, 100, len(labels)))
    none = np.zeros(len(labels))
    answers = Answers(np.arange(len(labels)), labels, predicted, none, none.astype(np.int64), none)
    counts = confusion_counts(answers, [f"class {label}" for label in range(1000)])
    assert sum(images for *_, images in counts) == 1_300_000
    assert ["class 999", "class 7", int(((labels == 999) & (predicted == 7)).sum())] in counts


def test_the_most_frequent_mistake_of_a_class() -> None:
    analysis = analyse_classes(answers_of(PROBABILITIES, LABELS), labelled(LABELS, NAMES))
    assert analysis["mistakes"]["cow"] == {"class": "cat", "images": 1}
    assert "dog" not in analysis["mistakes"]


def test_the_surest_mistakes_come_first() -> None:
    worst = analyse_classes(answers_of(PROBABILITIES, LABELS), labelled(LABELS, NAMES))["worst_images"]
    assert [row["image_id"] for row in worst] == ["image 2", "image 1"]
    assert worst[0]["class"] == "cow"
    assert worst[0]["predicted"] == "cat"
    assert worst[0]["rank"] == 3


def test_calibration_compares_probability_and_accuracy() -> None:
    rows = calibration(answers_of([(0.72, 0.28), (0.26, 0.74), (1.0, 0.0)], (0, 0, 0)))
    assert rows[0] == pytest.approx({"from": 0.7, "to": 0.8, "images": 2, "mean_probability": 0.73, "right": 0.5})
    assert rows[1] == {"from": 0.9, "to": 1.0, "images": 1, "mean_probability": 1.0, "right": 1.0}


def test_wilsons_interval_as_published() -> None:
    # Newcombe 1998, table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=5e-5)


def test_intervals_are_those_of_the_shares_in_the_metrics() -> None:
    steps = (0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05)
    # In the places 1, 2, 2, 5 and 6.
    answers = answers_of([steps] * 5, (0, 1, 1, 4, 5))
    intervals = analyse_classes(answers, labelled((0, 1, 1, 4, 5), tuple("abcdefg")))["intervals"]
    assert intervals["top1"] == wilson_interval(1, 5)
    assert intervals["top5"] == wilson_interval(4, 5)
    assert intervals["per_class"]["b"] == wilson_interval(0, 2)


def test_one_right_image_proves_little() -> None:
    assert wilson_interval(1, 1) == pytest.approx([0.2065, 1.0], abs=5e-5)


def test_no_image_no_interval() -> None:
    assert wilson_interval(0, 0) is None


@given(logs_and_labels(6), st.permutations(range(6)))
def test_the_order_of_classes_does_not_count_where_no_two_are_equal(
    drawn: tuple[np.ndarray, np.ndarray], order: list[int]
) -> None:
    logs = drawn[0] - np.linspace(0, 0.9, 6)
    place_of = np.argsort(order)
    metrics = score_classes(Answers.of(dict(enumerate(judge(logs, drawn[1])))), tuple("abcdef"))
    moved = judge(logs[:, order], place_of[drawn[1]])
    moved_metrics = score_classes(Answers.of(dict(enumerate(moved))), [tuple("abcdef")[label] for label in order])
    assert moved_metrics == metrics


@given(logs_and_labels(6))
def test_top5_is_no_less_than_top1(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    metrics = score_classes(Answers.of(dict(enumerate(judge(*drawn)))), tuple("abcdef"))["classification"]
    assert metrics["top5"] >= metrics["top1"]


@given(logs_and_labels(4))
def test_the_first_place_is_the_prediction(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    answers = Answers.of(dict(enumerate(judge(*drawn))))
    assert (answers.ranks == 1).tolist() == answers.right.tolist()


@given(logs_and_labels(4))
def test_rows_of_the_confusion_count_the_images_of_a_class(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    answers = Answers.of(dict(enumerate(judge(*drawn))))
    metrics = score_classes(answers, tuple("abcd"))
    table = np.array(analyse_classes(answers, labelled(drawn[1].tolist(), tuple("abcd")))["confusion"]["table"])
    assert table.sum(axis=1).tolist() == [row["images"] for row in metrics["per_class"].values()]
    assert table.trace() == answers.right.sum()


def test_the_console_shows_all_of_a_few_classes_in_their_order() -> None:
    text = format_classification(score_classes(answers_of(PROBABILITIES, LABELS), NAMES))
    assert text.splitlines() == [
        "4 images of 3 classes",
        "",
        "   top-1  log loss",
        "    50.0     1.067",
        "",
        "class   images  accuracy",
        "cat          2      50.0",
        "dog          1     100.0",
        "cow          1       0.0",
    ]


def test_the_console_shows_the_worst_of_many_classes_first() -> None:
    metrics, _ = evaluate(tuple(f"class {label}" for label in range(200)), 4000)
    lines = format_classification(metrics).splitlines()
    assert "the 20 worst classes" in lines
    shown = [float(line.split()[-1]) for line in lines[-20:]]
    assert shown == sorted(shown)
    assert shown[0] == pytest.approx(100 * min(row["accuracy"] for row in metrics["per_class"].values()), abs=0.05)
    assert len(lines) == 27


def test_the_console_shows_top5_where_it_tells_something() -> None:
    assert "top-5" in format_classification(evaluate(tuple("abcdef"), 20)[0])
    assert "top-5" not in format_classification(evaluate(tuple("abcde"), 20)[0])


def test_the_console_keeps_foreign_names_on_their_line() -> None:
    text = format_classification(evaluate(("red\x1b[31m", "x" * 100), 9)[0])
    assert text.isprintable() or set(text) - {"\n"} == set(filter(str.isprintable, text))
    assert max(map(len, text.splitlines())) < 60
