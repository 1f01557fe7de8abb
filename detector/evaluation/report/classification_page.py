"""The report of a classifier: one HTML file with the look of the detector's, and as closed to the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detector.evaluation.classification import tells_top5
from detector.evaluation.report import page
from detector.evaluation.report.bars import Bar
from detector.evaluation.report.charts import CalibrationWords, draw_calibration
from detector.evaluation.report.content import Square
from detector.evaluation.report.numbers import DASH, count, defined, percent, score, shorten, span
from detector.evaluation.report.overview import Cell, ClassTable, Column, Group, Number
from detector.evaluation.report.pictures import Picture

_HERE = Path(__file__).parent
_MOST_CLASSES = 1500
_SECTIONS = {
    "numbers": "Numbers",
    "warnings": "Warnings",
    "classes": "Classes",
    "confusion": "Confusion",
    "pairs": "Confused pairs",
    "calibration": "Calibration",
    "images": "Surest mistakes",
    "data": "Data",
    "origin": "Configuration",
}
_OF_ANSWERS = CalibrationWords(
    "Share that is right",
    "Probability",
    "Images",
    "Share of right answers against their probability, and the number of images",
)


@dataclass(frozen=True)
class Mistake(Picture):
    """An image of another class than predicted; its classes are the true and the predicted one.

    Attributes:
        probability: of the predicted class.
        rank: the place of the true class, from 1.
    """

    probability: float
    rank: int


@dataclass(frozen=True)
class _Card:
    """A picture as the page shows it."""

    title: str
    true: str
    predicted: str
    note: str
    source: str
    width: int
    height: int


def write_classification_report(
    path: Path,
    metrics: Mapping[str, Any],
    analysis: Mapping[str, Any],
    provenance: dict[str, str],
    mistakes: Sequence[Mistake],
) -> None:
    """Writes the page, smaller than 5 MB: pictures shrink, and the last ones go, until it is.

    Args:
        path: the HTML file.
        metrics: the content of metrics.json.
        analysis: the content of analysis.json.
        provenance: title -> text; texts of several lines stand folded at the end.
        mistakes: the surest one first.

    Raises:
        MachineError: the file cannot be written.
    """
    values = _values(metrics, analysis, provenance)
    template = page.environment(_HERE).get_template("classification.html.j2")

    def render(shown: Sequence[Picture], bare: bool) -> str:
        cards = [_card(picture, bare) for picture in shown if isinstance(picture, Mistake)]
        return template.render(values, cards=cards, pictures_left_out=len(mistakes) - len(shown))

    page.write_fitting(path, mistakes, render)


def _card(picture: Mistake, bare: bool) -> _Card:
    true, predicted = (shorten(name, 40) for name in picture.classes)
    note = f"{score(picture.probability)}" + (f", true class in place {picture.rank}" if picture.rank > 2 else "")
    return _Card(shorten(picture.title), true, predicted, note, "" if bare else picture.data_uri(), *picture.size())


def _values(metrics: Mapping[str, Any], analysis: Mapping[str, Any], provenance: dict[str, str]) -> dict[str, Any]:
    """All that the template shows, pictures left out."""
    confusion = analysis["confusion"]
    return {
        **page.frame(_SECTIONS, provenance, analysis["warnings"]),
        "images": metrics["images"],
        "class_count": len(metrics["per_class"]),
        "group": _headline(metrics, analysis),
        "classes": _class_table(metrics, analysis),
        "confusion": _confusion_rows(confusion),
        "others": confusion["others"],
        "pairs": _pair_bars(analysis),
        "calibration_chart": _calibration_chart(analysis),
        "calibration": _calibration_rows(analysis),
        "data": _data_facts(analysis),
    }


def _headline(metrics: Mapping[str, Any], analysis: Mapping[str, Any]) -> Group:
    """Top-1 and top-5 with their intervals, and log loss; top-5 only where it says something."""
    numbers, intervals = metrics["classification"], analysis["intervals"]
    meanings = {"top1": "images whose class has the largest probability"}
    if tells_top5(metrics):
        meanings["top5"] = "images whose class is among the first five"
    large = [
        Number(f"top-{key[3:]}", meaning, percent(numbers[key]), span(intervals[key], numbers[key]))
        for key, meaning in meanings.items()
    ]
    loss = Number("log loss", "0 would be certain and right", score(numbers["log_loss"]), None)
    return Group("Accuracy", [*large, loss], [])


def _class_table(metrics: Mapping[str, Any], analysis: Mapping[str, Any]) -> ClassTable:
    """All classes in the order of the data set; of very many the least accurate ones."""
    classes: dict[str, dict[str, Any]] = metrics["per_class"]
    worst = sorted(classes, key=lambda name: (classes[name]["accuracy"] is None, classes[name]["accuracy"] or 0.0))
    kept = set(worst[:_MOST_CLASSES])
    columns = [
        Column("Images", "How many there are of this class"),
        Column("Accuracy", "The share of them that is classified rightly, with its 95 % interval"),
        Column("Most frequent mistake", "What the class is most often taken for, and the share of its images"),
    ]
    rows = [(shorten(name), _cells(name, row, analysis)) for name, row in classes.items() if name in kept]
    return ClassTable(columns, rows, len(classes) - len(rows))


def _cells(name: str, row: Mapping[str, Any], analysis: Mapping[str, Any]) -> list[Cell]:
    images, accuracy, mistake = row["images"], row["accuracy"], analysis["mistakes"].get(name)
    text, share = DASH, None
    if mistake is not None:
        share = mistake["images"] / images
        text = f"{shorten(mistake['class'], 40)}, {100 * share:.0f} %"
    interval = span(analysis["intervals"]["per_class"][name], accuracy)
    return [Cell(count(images), images), Cell(percent(accuracy), defined(accuracy), interval), Cell(text, share)]


def _confusion_rows(confusion: Mapping[str, Any]) -> list[tuple[str, list[Square]]]:
    """The rows of the matrix with their names; what is summed up stands last."""
    names = [shorten(name, 40) for name in confusion["names"]]
    summed = len(names) - 1 if confusion["others"] else None
    result = []
    for true, row in enumerate(confusion["table"]):
        total = sum(row)
        squares = []
        for predicted, number in enumerate(row):
            if true == predicted == summed:
                squares.append(Square("", 0.0, "Classes that are not shown, among themselves"))
                continue
            share = number / total if total else 0.0
            subject = f"{names[true]} {'recognised' if true == predicted else f'taken for {names[predicted]}'}"
            sentence = f"{subject}: {count(number)} of {count(total)}" + (f", {100 * share:.0f} %" if total else "")
            squares.append(Square(count(number) if number else "·", share, sentence))
        result.append((names[true], squares))
    return result


def _pair_bars(analysis: Mapping[str, Any]) -> list[Bar]:
    """The most frequent mistakes with their share of the true class's images."""
    rows = analysis["confused_pairs"]
    largest = max([row["share"] for row in rows], default=1.0)
    return [
        Bar(
            f"{shorten(row['class'], 40)} taken for {shorten(row['predicted'], 40)}",
            "",
            count(row["images"]),
            percent(row["share"]),
            100 * row["share"] / largest,
        )
        for row in rows
    ]


def _calibration_rows(analysis: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Range of probabilities, images, mean probability, and share that is right."""
    return [
        (f"{row['from']:.1f}–{row['to']:.1f}", count(row["images"]), score(row["mean_probability"]),
         score(row["right"]))
        for row in analysis["calibration"]
    ]  # fmt: skip


def _calibration_chart(analysis: Mapping[str, Any]) -> Markup | None:
    """The chart; None without answers."""
    rows = [
        {
            "from": row["from"],
            "to": row["to"],
            "detections": row["images"],
            "mean_score": row["mean_probability"],
            "true": row["right"],
        }
        for row in analysis["calibration"]
    ]
    return draw_calibration(rows, _OF_ANSWERS) if rows else None


def _data_facts(analysis: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = analysis["data"]
    facts = [
        ("Images", count(data["images"])),
        ("Images that could be read", count(data["read"])),
        ("Classes", count(data["classes"])),
        ("Classes without images", count(data["classes_without_images"])),
    ]
    return [*facts, ("Fingerprint of the ground truth", str(data["fingerprint"]))]
