"""The report: one HTML file that holds its style, its script, its charts and its pictures.

A content security policy forbids every request and every script but the page's own; names of classes and images are
escaped besides.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from detector.durable import replace_file
from detector.errors import MachineError
from detector.evaluation.report import bars, content, overview
from detector.evaluation.report.numbers import DASH, count, score, several, shorten
from detector.evaluation.report.pictures import Picture, fit

__all__ = ["Picture", "environment", "frame", "write_fitting", "write_report"]

_LIMIT = 5_000_000
_SLACK = 2_000
_HERE = Path(__file__).parent
_LONGEST_FACT = 160
_LONGEST_TEXT = 200_000
_SECTIONS = {
    "numbers": "Numbers",
    "warnings": "Warnings",
    "classes": "Classes",
    "curves": "Precision and recall",
    "errors": "Kinds of errors",
    "stages": "Where objects were lost",
    "confusion": "Confusion",
    "calibration": "Calibration",
    "slices": "Size and shape",
    "images": "Worst images",
    "data": "Data",
    "origin": "Configuration",
}


@dataclass(frozen=True)
class _Card:
    """A picture as the page shows it; kinds and classes are numbers of the filters' entries."""

    title: str
    errors: str
    classes: str
    kind_numbers: str
    class_numbers: str
    source: str
    width: int
    height: int


def write_report(
    path: Path,
    metrics: dict[str, Any],
    analysis: dict[str, Any],
    provenance: dict[str, str],
    pictures: Sequence[Picture],
) -> None:
    """Writes the page, smaller than 5 MB: pictures shrink, and the last ones go, until it is.

    Args:
        path: the HTML file.
        metrics: the content of metrics.json.
        analysis: the content of analysis.json; parts that are missing are named as missing.
        provenance: title -> text; texts of several lines stand folded at the end.
        pictures: ground truth beside detections, the worst image first.

    Raises:
        MachineError: the file cannot be written.
    """
    values = _values(metrics, analysis, provenance)

    def render(shown: Sequence[Picture], bare: bool) -> str:
        return _render(values | {"pictures_left_out": len(pictures) - len(shown)}, shown, bare)

    write_fitting(path, pictures, render)


def write_fitting(path: Path, pictures: Sequence[Picture], render: Callable[[Sequence[Picture], bool], str]) -> None:
    """Writes a page, smaller than 5 MB: pictures shrink, and the last ones go, until it is.

    Args:
        path: the HTML file.
        pictures: the most telling first.
        render: from pictures to the page; a bare one has all but their bytes.

    Raises:
        MachineError: the file cannot be written.
    """
    shown = fit(pictures, _LIMIT - _SLACK - len(render(pictures, True).encode()))
    try:
        replace_file(path, render(shown, False))
    except OSError as error:
        raise MachineError(f"{path}: the page cannot be written ({error.strerror or error})") from None


def frame(sections: dict[str, str], provenance: dict[str, str], warnings: Sequence[str]) -> dict[str, Any]:
    """What a template needs around its own content: style, script, sections, warnings and origin.

    Args:
        sections: their titles by id.
        provenance: title -> text; texts of several lines stand folded at the end.
        warnings: sentences; without any their section goes.
    """
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    facts, texts = _sorted_provenance(provenance)
    return {
        "style": Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "sections": {key: title for key, title in sections.items() if key != "warnings" or warnings},
        "run": shorten(provenance.get("Run", ""), 120),
        "warnings": warnings,
        "facts": facts,
        "texts": texts,
        "count": count,
        "several": several,
    }


def environment(*folders: Path) -> jinja2.Environment:
    """What templates are rendered in: names are escaped, and a missing value is an error.

    Args:
        folders: of templates, the first one first.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(values: dict[str, Any], pictures: Sequence[Picture], bare: bool) -> str:
    """The page; a bare one has all but the bytes of the pictures."""
    kinds = list(dict.fromkeys(kind for picture in pictures for kind in picture.errors))
    classes = sorted({name for picture in pictures for name in picture.classes})
    cards = [_card(picture, kinds, classes, bare) for picture in pictures]
    filters = {"Kind of error": ("kinds", kinds), "Class": ("classes", [shorten(name, 40) for name in classes])}
    return environment(_HERE).get_template("page.html.j2").render(values, cards=cards, filters=filters)


def _card(picture: Picture, kinds: list[str], classes: list[str], bare: bool) -> _Card:
    width, height = picture.size()
    return _Card(
        shorten(picture.title),
        content.error_list(picture.errors) or "no error",
        ", ".join(shorten(name, 40) for name in picture.classes),
        " ".join(str(kinds.index(kind)) for kind in picture.errors),
        " ".join(str(classes.index(name)) for name in picture.classes),
        "" if bare else picture.data_uri(),
        width,
        height,
    )


def _values(metrics: dict[str, Any], analysis: dict[str, Any], provenance: dict[str, str]) -> dict[str, Any]:
    """All that the template shows, pictures left out."""
    return {
        **frame(_SECTIONS, provenance, [str(sentence) for sentence in analysis.get("warnings") or []]),
        **_numbers(metrics, analysis),
        **_charts(analysis),
    }


def _numbers(metrics: dict[str, Any], analysis: dict[str, Any]) -> dict[str, Any]:
    classes = metrics.get("per_class") or {}
    stages, confusion = analysis.get("stages") or {}, analysis.get("confusion") or {}
    return {
        "images": metrics.get("images"),
        "detections": metrics.get("detections"),
        "objects": sum(row.get("objects") or 0 for row in classes.values()),
        "class_count": len(classes),
        "samples": (analysis.get("intervals") or {}).get("samples"),
        "groups": overview.headline(metrics, analysis),
        "classes": overview.class_table(metrics, analysis),
        "errors": bars.error_bars(analysis),
        "stages_sentence": bars.stages_sentence(stages),
        "stages": bars.stage_bars(stages),
        "proposals": bars.proposal_recall(stages),
        "slices": bars.slice_tables(analysis),
        "confusion": content.confusion_rows(confusion),
        "confusion_score": score(confusion.get("score")),
        "worst": content.worst_rows(analysis),
    }


def _charts(analysis: dict[str, Any]) -> dict[str, Any]:
    return {
        "curves": content.curves(analysis),
        "calibration_chart": content.calibration_chart(analysis),
        "calibration": content.calibration_rows(analysis),
        "data": content.data_facts(analysis),
        "histogram": content.histogram(analysis),
    }


def _sorted_provenance(provenance: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Short texts, and those of several lines."""
    facts, texts = {}, {}
    for title, text in provenance.items():
        if "\n" in text.strip() or len(text) > _LONGEST_FACT:
            texts[title] = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}\n… cut here"
        else:
            facts[title] = text.strip() or DASH
    return facts, texts
