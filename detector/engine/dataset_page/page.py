"""One HTML file about a data set, with the look of the evaluation report, and as closed to the outside."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from detector.config.data_schema import ResizeConfig
from detector.config.schema import AnchorConfig
from detector.data.doctor.anchor_fit import AnchorFit, objects_of, resized_sides
from detector.data.doctor.anchor_search import GOOD_RECALL, Suggestion
from detector.data.findings import KINDS, Finding
from detector.data.raw.structure import RawSet
from detector.engine.dataset_page import charts, content
from detector.engine.dataset_page.gallery import Exhibit, Gallery, Read
from detector.engine.self_test import SelfTest
from detector.evaluation.report import page as report_page
from detector.evaluation.report.charts import SERIES, colour, dashed
from detector.evaluation.report.content import Line
from detector.evaluation.report.numbers import percent
from detector.evaluation.report.pictures import Picture

_HERE, _REPORT = Path(__file__).parent, Path(report_page.__file__).parent
_SECTIONS = {
    "numbers": "Summary",
    "findings": "Findings",
    "gallery": "Pictures of findings",
    "objects": "Objects",
    "classes": "Classes",
    "detector": "What the detector sees",
}


@dataclass(frozen=True)
class DatasetPage:
    """What the page tells.

    Attributes:
        title: of the data set.
        sets: its splits.
        sizes: of each split ``(N, 2)``: height and width of the images, 0 where not known.
        findings: about all splits.
        pairs: the two image files of findings that are about two images.
        resize: the configured resize rule.
        anchors: the configured anchors.
        fit: how well these cover the objects; None where that was not measured.
        suggestion: better ones, if there are any.
        self_test: what ground truth scores as detections; None where that was not tried.
    """

    title: str
    sets: Sequence[RawSet]
    sizes: Sequence[np.ndarray]
    findings: Sequence[Finding]
    pairs: Mapping[Finding, tuple[str, str]]
    resize: ResizeConfig
    anchors: AnchorConfig
    fit: AnchorFit | None = None
    suggestion: Suggestion | None = None
    self_test: SelfTest | None = None


@dataclass(frozen=True)
class _Card:
    """A picture as the page shows it."""

    title: str
    note: str
    source: str
    width: int
    height: int


def write_dataset_page(path: Path, page: DatasetPage, read: Read) -> None:
    """Writes the page, smaller than 5 MB: pictures shrink, and the last ones go, until it is.

    Args:
        path: the HTML file.
        page: what it tells.
        read: an image file to ``(H, W, 3)`` uint8 RGB; for those that raise ImageError there are no pictures.

    Raises:
        MachineError: the file cannot be written.
    """
    root = content.common_folder(page.sets)
    exhibits = Gallery(page.sets, page.pairs, read, root).exhibits(page.findings)
    values = _values(page, root)

    def render(pictures: Sequence[Picture], bare: bool) -> str:
        shown = [
            Exhibit(exhibit.kind, exhibit.note, picture)
            for exhibit, picture in zip(exhibits, pictures, strict=False)  # the last ones may be gone
        ]
        return _render(values | {"pictures_left_out": len(exhibits) - len(shown)}, shown, bare)

    report_page.write_fitting(path, [exhibit.picture for exhibit in exhibits], render)


def _render(values: dict[str, Any], exhibits: Sequence[Exhibit], bare: bool) -> str:
    """The page; a bare one has all but the bytes of the pictures."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    kinds = {group.key: group.title for group in values["groups"]}
    by_kind = sorted(exhibits, key=lambda exhibit: list(kinds).index(exhibit.kind))
    galleries = [
        (places[kind], kinds[kind], [_card(exhibit, bare) for exhibit in members])
        for kind, members in itertools.groupby(by_kind, key=lambda exhibit: exhibit.kind)
    ]
    return report_page.environment(_HERE, _REPORT).get_template("page.html.j2").render(values, galleries=galleries)


def _card(exhibit: Exhibit, bare: bool) -> _Card:
    picture = exhibit.picture
    return _Card(picture.title, exhibit.note, "" if bare else picture.data_uri(), *picture.size())


def _values(page: DatasetPage, root: str) -> dict[str, Any]:
    """All that the template shows, pictures left out."""
    images, objects = content.distinct(page.sets)
    style = "".join((folder / "page.css").read_text(encoding="utf-8") for folder in (_REPORT, _HERE))
    return {
        **report_page.frame(_SECTIONS, {}, ()),
        "style": Markup(style),
        "title": content.plain(page.title, 120),
        "root": content.plain(root),
        "images": images,
        "objects": objects,
        "class_count": len(content.class_names(page.sets)),
        "counts": content.severity_counts(page.findings),
        "splits": content.split_rows(page.sets, page.sizes),
        "groups": content.finding_groups(page.findings, root),
        "classes": content.class_table(page.sets),
        "percent": percent,
        **_charts(page),
        **_fit_values(page),
    }


def _charts(page: DatasetPage) -> dict[str, Any]:
    """The charts of the objects, of the first splits if there are very many."""
    splits = list(zip(page.sets, page.sizes, strict=True))[:SERIES]
    objects = [objects_of(raw, sizes) for raw, sizes in splits]
    if not any(map(len, objects)):
        return {"legend": [], "charts": None}
    boxes, sizes = (np.concatenate([getattr(each, name) for each in objects]) for name in ("boxes", "sizes"))
    sides = [each.boxes[:, 2:] - each.boxes[:, :2] for each in objects]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes[:, ::-1]
    names = [content.plain(raw.split, 40) for raw, _ in splits]
    legend = [Line(name, colour(series), dashed(series), series) for series, name in enumerate(names)]
    counts = [np.bincount(raw.images[raw.images >= 0], minlength=len(raw)) for raw, _ in splits]
    return {
        "legend": legend if len(legend) > 1 else [],
        "charts": {
            "sides": charts.draw_sides([resized_sides(each, page.resize) for each in objects], page.anchors.sizes),
            "ratios": charts.draw_ratios([each[:, 1] / each[:, 0] for each in sides], page.anchors.aspect_ratios),
            "counts": charts.draw_counts(counts),
            "places": charts.draw_places(centres[:, 0], centres[:, 1]),
        },
    }


def _fit_values(page: DatasetPage) -> dict[str, Any]:
    fit_, test = page.fit, page.self_test
    return {
        "fit": fit_,
        "fits": fit_ is not None and fit_.recall_50 >= GOOD_RECALL,
        "anchors": page.anchors,
        "short_side": page.resize.test_short_side,
        "by_size": content.recall_bars(fit_.by_size) if fit_ else [],
        "by_class": content.worst_classes(fit_) if fit_ else [],
        "suggestion": page.suggestion,
        "self_test": content.self_test_sentence(test) if test else "",
        "ap": test.ap if test else None,
    }
