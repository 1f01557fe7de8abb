"""All that can be said about a data set before it is trained on: its faults, and what the detector will make of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from detector.config.schema import Config
from detector.data.build import class_aliases
from detector.data.coco import open_coco
from detector.data.dataset import DetectionDataset, FileDataset
from detector.data.doctor.anchor_fit import AnchorFit, Objects, measure_fit, objects_of
from detector.data.doctor.anchor_search import Suggestion, check_anchors, suggest
from detector.data.doctor.box_checks import check_boxes
from detector.data.doctor.class_checks import check_classes
from detector.data.doctor.image_checks import Inspection, inspect_images
from detector.data.doctor.likeness import check_likeness, find_alike
from detector.data.doctor.split_checks import check_splits
from detector.data.findings import KINDS, Finding, most_severe_first
from detector.data.images import read_image
from detector.data.raw.opened import raw_of
from detector.data.raw.recognise import read_raw
from detector.data.raw.structure import RawSet, Source
from detector.data.voc import open_voc
from detector.engine.dataset_page.page import DatasetPage, write_dataset_page
from detector.engine.quick_check import anchor_sentence
from detector.engine.self_test import SelfTest, self_test
from detector.errors import DetectorError, one_line


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about a data set.

    Attributes:
        sets: its splits.
        sizes: of each split ``(N, 2)`` int64: height and width of the images as far as they are known, upright.
        findings: what is amiss in any of them.
        fit: how well the configured anchors cover the objects of all splits.
        suggestion: better anchors, if there are any.
        self_tests: by split; those that the strict reader cannot open have none.
    """

    sets: Sequence[RawSet]
    sizes: Sequence[np.ndarray]
    findings: Sequence[Finding]
    fit: AnchorFit | None = None
    suggestion: Suggestion | None = None
    self_tests: dict[str, SelfTest] = field(default_factory=dict)


def diagnose(
    sources: Sequence[Source],
    config: Config,
    quick: bool,
    workers: int,
    drawn: Mapping[str, DetectionDataset] = MappingProxyType({}),
) -> Diagnosis:
    """Looks at everything.

    Args:
        sources: the splits.
        config: for classes, the resize rule, anchors and limits.
        quick: leave the image files alone.
        workers: processes that decode images.
        drawn: splits that have no files.

    Raises:
        DatasetError: annotations cannot be read at all.
        WorkerError: a process that decoded images was lost.
    """
    sets = [read_raw(source) for source in sources]
    findings = [finding for raw in sets for finding in raw.findings]
    sizes: list[np.ndarray] = [raw.sizes for raw in sets]
    if sets and not quick:
        inspections = [inspect_images(raw, config.data.max_image_pixels, workers, True) for raw in sets]
        findings += [finding for inspection in inspections for finding in inspection.findings]
        sizes = [
            np.where(inspection.sizes > 0, inspection.sizes, raw.sizes)
            for inspection, raw in zip(inspections, sets, strict=True)
        ]
        thumbnails = np.concatenate([inspection.thumbnails for inspection in inspections])
        digests = [digest for inspection in inspections for digest in _of_readable(inspection)]
        findings += check_likeness(sets, find_alike(thumbnails, digests))
    findings += check_splits(sets)
    sets += [raw_of(dataset, split) for split, dataset in drawn.items()]
    sizes += [raw.sizes for raw in sets[len(sources) :]]
    for raw, known in zip(sets, sizes, strict=True):
        findings += check_boxes(raw, known, config.data.resize)
    findings += check_classes(sets, _wanted(sets, config))
    fit, suggestion = _anchors(sets, sizes, config)
    if fit is not None:
        findings += check_anchors(fit, suggestion, sets[0].split, str(sets[0].source))
    tests = {source.split: test for source in sources if (test := _test(source, config)) is not None}
    tests |= {split: self_test(dataset, config, split, split) for split, dataset in drawn.items()}
    findings += [test.finding for test in tests.values() if test.finding is not None]
    return Diagnosis(sets, sizes, findings, fit, suggestion, tests)


def _anchors(
    sets: Sequence[RawSet], sizes: Sequence[np.ndarray], config: Config
) -> tuple[AnchorFit | None, Suggestion | None]:
    """What the configured anchors cover, and better ones if there are any."""
    names = tuple(dict.fromkeys(name for raw in sets for name in raw.class_names))
    objects = _all_objects(sets, sizes, names)
    if not len(objects):
        return None, None
    fit = measure_fit(objects, names, config.data.resize, config.model.anchors)
    return fit, suggest(objects, names, config.data.resize, config.model.anchors, fit)


def write_page(diagnosis: Diagnosis, config: Config, title: str, path: Path) -> None:
    """Writes the page.

    Raises:
        MachineError: it cannot be written.
    """
    page = DatasetPage(
        title,
        diagnosis.sets,
        diagnosis.sizes,
        diagnosis.findings,
        {finding: (finding.file, finding.other) for finding in diagnosis.findings if finding.other},
        config.data.resize,
        config.model.anchors,
        diagnosis.fit,
        diagnosis.suggestion,
        next(iter(diagnosis.self_tests.values()), None),
    )
    write_dataset_page(path, page, lambda file: read_image(file, config.data.max_image_pixels))


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain values."""
    return {
        "splits": [
            {
                "split": raw.split,
                "format": raw.format,
                "source": str(raw.source),
                "images": len(raw),
                "objects": len(raw.labels),
                "classes": {name: int(count) for name, count in zip(raw.class_names, _count_labels(raw), strict=True)},
            }
            for raw in diagnosis.sets
        ],
        "counts": {kind: len(members) for kind, members in most_severe_first(diagnosis.findings).items()},
        "findings": [
            {
                "kind": finding.kind,
                "severity": KINDS[finding.kind].severity,
                "split": finding.split,
                "file": finding.file,
                "record": finding.record,
                "what": finding.what,
                "remedy": KINDS[finding.kind].remedy,
            }
            for finding in diagnosis.findings
        ],
        "anchors": None if diagnosis.fit is None else asdict(diagnosis.fit),
        "suggestion": None if diagnosis.suggestion is None else asdict(diagnosis.suggestion),
        "self_test": {split: test.scores for split, test in diagnosis.self_tests.items()},
    }


def summarise(diagnosis: Diagnosis, shown: int) -> list[str]:
    """The diagnosis in lines.

    Args:
        diagnosis: all of it.
        shown: findings of each kind that are told one by one.
    """
    lines = [
        f"{raw.split}: {len(raw):,} images, {len(raw.labels):,} objects, {len(raw.class_names)} classes "
        f"({raw.format}, {one_line(raw.source)})"
        for raw in diagnosis.sets
    ]
    numbers = {"error": 0, "warning": 0, "note": 0}
    for kind, members in most_severe_first(diagnosis.findings).items():
        about = KINDS[kind]
        numbers[about.severity] += len(members)
        lines += ["", f"{about.severity}: {about.title}: {len(members):,}"]
        lines += [f"  {one_line(member, 300)}" for member in members[:shown]]
        lines += [f"  ... and {len(members) - shown:,} more"] if len(members) > shown else []
        lines.append(f"  -> {about.remedy}")
    if diagnosis.fit is not None:
        lines += ["", anchor_sentence(diagnosis.fit)]
        lines += [f"suggested: {diagnosis.suggestion}"] if diagnosis.suggestion else []
    for split, test in diagnosis.self_tests.items():
        if test.ap is not None and test.finding is None:
            lines.append(f"self-test: the ground truth of {split}, fed through as detections, scores AP {test.ap:.4g}")
    untested = [raw.split for raw in diagnosis.sets if raw.split not in diagnosis.self_tests]
    if untested:
        names = ", ".join(untested)
        lines.append(f"self-test: not run on {names}: training cannot open that yet (mend or convert it)")
    counts = [f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in numbers.items()]
    return [*lines, "", "found: " + ", ".join(counts)]


def _wanted(sets: Sequence[RawSet], config: Config) -> list[str] | None:
    """The data set's own names of the classes that are wanted; of those that it has under no name, ours."""
    if config.data.class_names is None:
        return None
    known = {name for raw in sets for name in raw.class_names}
    aliases = class_aliases(config.data)
    wanted: list[str] = []
    for name in config.data.class_names:
        own = [alias for alias in (name, *aliases) if alias in known and aliases.get(alias, alias) == name]
        wanted += own or [name]
    return list(dict.fromkeys(wanted))


def _of_readable(inspection: Inspection) -> list[bytes]:
    """Digests of files; none of those that are no image, which are alike in that alone."""
    pairs = zip(inspection.digests, inspection.readable, strict=True)
    return [digest if readable else b"" for digest, readable in pairs]


def _count_labels(raw: RawSet) -> np.ndarray:
    return np.bincount(raw.labels[raw.labels >= 0], minlength=len(raw.class_names))


def _all_objects(sets: Sequence[RawSet], sizes: Sequence[np.ndarray], names: Sequence[str]) -> Objects:
    """The objects of all splits, with one numbering of the classes."""
    parts = [objects_of(raw, known) for raw, known in zip(sets, sizes, strict=True)]
    label_of = {name: label for label, name in enumerate(names)}
    labels = [
        np.array([label_of[name] for name in raw.class_names], dtype=np.int64)[part.labels]
        for raw, part in zip(sets, parts, strict=True)
    ]
    return Objects(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate(labels),
    )


def _test(source: Source, config: Config) -> SelfTest | None:
    """The self-test of a split; None where the strict reader refuses it, for which there are findings."""
    try:
        dataset = _open(source, config)
        return None if dataset is None else self_test(dataset, config, source.split, str(source.annotations))
    except DetectorError:
        return None


def _open(source: Source, config: Config) -> FileDataset | None:
    classes, limit, aliases = config.data.class_names, config.data.max_image_pixels, class_aliases(config.data)
    if source.format == "coco":
        return open_coco(source.images, source.annotations, classes, True, limit, aliases)
    listed = source.annotations != source.images and source.annotations.parent.name == "Main"
    if source.format == "voc" and listed:
        return open_voc(source.images, source.annotations.stem, classes, True, limit, aliases)
    return None


def default_workers() -> int:
    """Processes that decode images: one a core, and none where there is but one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return count if count > 1 else 0
