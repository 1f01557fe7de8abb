"""Small evaluations, scored and analysed by the real code, for the tests of the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detector.evaluation.analysis import analyse
from detector.evaluation.report.page import Picture, write_report
from detector.evaluation.score import score
from detector.structures import Annotations, DetectionTable

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><b>bold</b>",
    "{{ 7 * 7 }} {% raw %}",
    "$\\frac{1}{2}$ & Ω 猫",
    "x" * 5000,
)
PROVENANCE = {
    "Run": "runs/mine",
    "Iteration": "1,400",
    "Configuration": "seed: 0\ndevice: auto\n",
    "Environment": '{\n "python": "3"\n}',
}
CLASSES = ("zebra", "ant", "cow")
CARDS = (
    ("first", {"missed": 2, "both": 1}, ("ant",)),
    ("second", {"background": 3}, ("zebra", "cow")),
    ("third", {"missed": 1}, ("cow",)),
)
_VOID = {"meta", "link", "img", "br", "input"}

Evaluation = tuple[dict[str, Any], dict[str, Any]]


def evaluate(names: Sequence[str], images: int = 12, found_share: float = 0.8) -> Evaluation:
    """Metrics and analysis of random objects, of which a share is found, nearly where they are.

    Args:
        names: of the classes.
        images: how many; each has 0 to 5 objects.
        found_share: 0 for no detection at all.
    """
    random = np.random.default_rng(0)
    counts = np.arange(images) % 6
    total = int(counts.sum())
    labels = np.arange(total) % max(len(names), 1)
    boxes = np.concatenate([random.uniform(0, 200, (total, 2)), random.uniform(8, 120, (total, 2))], axis=1)
    rows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    plain = np.zeros(total, dtype=bool)
    truth = Annotations(
        tuple(f"image {index}" for index in range(images)), tuple(names), tuple(range(len(names))), rows, labels, boxes,
        boxes[:, 2] * boxes[:, 3], plain, plain,
    )  # fmt: skip
    kept = np.flatnonzero(random.random(total) < found_share)
    moved = boxes[kept] + random.normal(0, 3, (len(kept), 4))
    moved[:, 2:] = moved[:, 2:].clip(2)
    taken_for = np.where(np.arange(len(kept)) % 5 == 4, (labels[kept] + 1) % max(len(names), 1), labels[kept])
    found = DetectionTable(truth.image_index()[kept], taken_for, moved, random.uniform(0.05, 1, len(kept)))
    return score(truth, found, ("coco", "voc07", "voc")), analyse(truth, found, samples=20)


def picture(
    title: str,
    errors: dict[str, int] | None = None,
    classes: Sequence[str] = (),
    size: tuple[int, int] = (120, 60),
    noise: bool = False,
) -> Picture:
    """A picture of one colour, or one of noise, whose file is large."""
    height, width = size[1], size[0]
    pixels = np.full((height, width, 3), 90, dtype=np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return Picture(title, errors or {"missed": 1}, tuple(classes), buffer.getvalue())


def write_examples(folder: Path) -> None:
    """Reports of all sorts: full.html, 80.html (classes), 1.html, 0.html (images) and nothing.html."""
    metrics, analysis = evaluate(CLASSES, 60)
    # An undefined AP in the first row shows where rows without a number go.
    metrics["per_class"]["zebra"]["AP"] = None
    stages = {"images": 4, "missed": 3, "lost": {"no anchor fits": 3}, "proposal_recall": {"100": 0.9}}
    pictures = [picture(title, errors, classes, (1200, 500)) for title, errors, classes in CARDS]
    full = analysis | {"stages": stages, "warnings": ["is this split annotated?"]}
    write_report(folder / "full.html", metrics, full, PROVENANCE, pictures)
    many = (*NASTY, *(f"class {number}" for number in range(80 - len(NASTY))))
    nasty = [picture(name, {"missed": 1}, NASTY) for name in NASTY]
    write_report(folder / "80.html", *evaluate(many, 200), {name[:9]: name for name in NASTY}, nasty)
    write_report(folder / "0.html", *evaluate(CLASSES, 0), {}, [])
    write_report(folder / "1.html", *evaluate(("w" * 500,), 3, 0.0), PROVENANCE, [])
    write_report(folder / "nothing.html", {}, {}, {}, [])


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and its text without style and script."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for tag, attributes in self.elements if tag == name]

    def values(self, attribute: str) -> list[str]:
        """The values of an attribute, wherever it stands."""
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]
