"""A mended copy of a data set, and a list of what was changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from detector.data.doctor.mending.coco import write_coco
from detector.data.doctor.mending.decide import decide
from detector.data.doctor.mending.draft import Change, Draft, write_changes
from detector.data.doctor.mending.layout import Layout
from detector.data.doctor.mending.pictures import Names, copy_image
from detector.data.doctor.mending.redraw import redraw_boxes
from detector.data.doctor.mending.shared import settle_shared
from detector.data.doctor.mending.voc import write_voc
from detector.data.doctor.mending.yolo import write_yolo
from detector.data.findings import Finding
from detector.data.raw.structure import RawSet
from detector.errors import DatasetError, UsageError, one_line


def mend(
    raws: Sequence[RawSet],
    findings: Sequence[Finding],
    sizes: Sequence[np.ndarray],
    folder: Path,
    progress: bool,
) -> list[Change]:
    """Writes a copy of a data set in which all findings of a mended kind are put right; the original is only read.

    The copy has the original's format and layout. It holds what the splits list and nothing else, with changes.txt
    and changes.json. It appears under its name once it is whole.

    Args:
        raws: all splits.
        findings: what was found in them.
        sizes: ``(N, 2)`` heights and widths of each split's images, upright; 0 where not known.
        folder: of the copy, new or empty.
        progress: show a bar.

    Returns:
        What was changed.

    Raises:
        UsageError: the folder is not empty, or lies in the data set.
        DatasetError: no image would be left.
        OSError: as the system reports it; nothing of the copy is left then.
    """
    folder = Path(os.path.abspath(folder))
    _refuse_used(folder)
    partial = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    layout = Layout(raws, partial)
    layout.refuse_inside(folder)
    drafts = _decide(raws, findings, sizes)
    if not any(draft.kept_images.any() for draft in drafts):
        raise DatasetError(f"{one_line(layout.root)}: nothing can be mended: no image would be left")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir()
    try:
        changes = _write(drafts, layout, progress)
        if folder.exists():
            folder.rmdir()
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return changes


def _refuse_used(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{one_line(folder)}: is not empty; give a new folder for the mended copy")
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{one_line(folder)}: is no folder; give a new folder for the mended copy")


def _decide(raws: Sequence[RawSet], findings: Sequence[Finding], sizes: Sequence[np.ndarray]) -> list[Draft]:
    drafts = [Draft(raw, size) for raw, size in zip(raws, sizes, strict=True)]
    found: list[dict[str, list[Finding]]] = [{} for _ in raws]
    number_of = {raw.split: number for number, raw in enumerate(raws)}
    for finding in findings:
        found[number_of[finding.split]].setdefault(finding.kind, []).append(finding)
    names = Names(raw.path(image) for raw in raws for image in range(len(raw)))
    for draft, kinds in zip(drafts, found, strict=True):
        decide(draft, kinds, names)
    settle_shared(drafts, found)
    for draft, kinds in zip(drafts, found, strict=True):
        redraw_boxes(draft, kinds)
    return drafts


def _write(drafts: Sequence[Draft], layout: Layout, progress: bool) -> list[Change]:
    for draft in drafts:
        if draft.raw.format == "coco":
            write_coco(draft, layout.place(draft.raw.source))
            layout.place(draft.raw.folder).mkdir(parents=True, exist_ok=True)
    for kind, write in (("voc", write_voc), ("yolo", write_yolo)):
        own = [draft for draft in drafts if draft.raw.format == kind]
        if own:
            write(own, layout)
    images = {
        layout.place(draft.raw.folder) / draft.name(image): (draft.origin(image), image in draft.upright)
        for draft in drafts
        for image in draft.images()
    }
    for new, (old, upright) in tqdm(images.items(), "copying images", leave=False, disable=None if progress else True):
        copy_image(old, new, upright)
    # Several splits tell of the same file in the same words.
    changes = list(dict.fromkeys(change for draft in drafts for change in draft.changes))
    write_changes(changes, layout.folder)
    return changes
