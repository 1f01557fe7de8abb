"""From findings to what is done about images and records: what was reported is what is mended."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import count

from detector.data.doctor.mending.draft import Draft
from detector.data.doctor.mending.pictures import (
    Names,
    has_right_suffix,
    orientation_of,
    other_spelling,
    right_suffix,
)
from detector.data.doctor.mending.redraw import turn_boxes
from detector.data.findings import Finding
from detector.data.images import read_image
from detector.errors import ImageError, quote
from detector.structures import ImageId, Size

_IMAGE_IS_LOST = {
    "image-empty": "the file is empty",
    "image-truncated": "the file is cut off",
    "image-unreadable": "no readable image",
    "file-name-unsafe": "its name leads out of the images folder",
    "annotation-missing": "it has no annotation file",
    "annotation-unreadable": "its annotation cannot be read",
}
# Of records that are in no array, these have their place in the file.
_RECORD_IS_LOST = (
    "unknown-image",
    "unknown-category",
    "annotation-unreadable",
    "box-unreadable",
    "file-name-unsafe",
    "file-name-twice",
)
_NOT_COPIED = {
    "image-unlisted": "not in the copy, since no annotation names them",
    "split-incomplete": "not in the copy, since no split lists it",
}

Findings = dict[str, list[Finding]]


def decide(draft: Draft, found: Findings, names: Names) -> None:
    """Settles what becomes of the images and records of one split; boxes and images in two places come later.

    Args:
        draft: gets what is decided.
        found: the findings of its split by kind.
        names: of all splits.
    """
    _take_out(draft, found)
    for finding in found.get("image-missing", ()):
        _find_missing(draft, finding.image, names)
    _tell_apart(draft, [finding.image for finding in found.get("image-id-twice", ())])
    _merge(draft, [finding.image for finding in found.get("file-name-twice", ()) if finding.image >= 0])
    for finding in found.get("image-mislabelled", ()):
        _rename(draft, finding.image, names)
    for finding in found.get("recorded-name-differs", ()):
        _correct_name(draft, finding.image)
    for finding in found.get("recorded-size-differs", ()):
        _record_size(draft, finding.image)
    not_turned = {finding.image for finding in found.get("boxes-not-turned", ())}
    for finding in found.get("image-rotated", ()):
        _turn(draft, finding.image, finding.image in not_turned)
    if "annotation-id-twice" in found:
        draft.renumbered = True
        draft.note(str(draft.raw.source), "", "annotation ids are there twice or 0: all are numbered anew from 1")
    for kind, what in _NOT_COPIED.items():
        for finding in found.get(kind, ()):
            if not draft.origins:  # else files that no annotation names were taken for others
                draft.note(finding.file, finding.record, f"{what} ({finding.what})")


def _take_out(draft: Draft, found: Findings) -> None:
    for kind in _RECORD_IS_LOST:
        for finding in found.get(kind, ()):
            if finding.row >= 0:
                draft.drop_row(finding.row, finding.what)
            elif finding.image < 0 or finding.record.startswith(("object[", "line ")):
                draft.drop_unread(finding)
    for kind, reason in _IMAGE_IS_LOST.items():
        for finding in found.get(kind, ()):
            if finding.row < 0 <= finding.image and (finding.file, finding.record) not in draft.unread:
                draft.drop_image(finding.image, reason)


def _find_missing(draft: Draft, image: int, names: Names) -> None:
    """Takes the file that is there in other letters or with another suffix, if there is no doubt about it."""
    path, recorded = draft.raw.path(image), Size(*draft.raw.sizes[image].tolist())
    other = other_spelling(path) if draft.kept_images[image] else None
    # YOLO's boxes are shares of an image, so that nothing tells whether they fit this one.
    if other is None or draft.raw.format == "yolo":
        draft.drop_image(image, "the file is not there")
        return
    found = os.path.join(os.path.dirname(path), other)
    size = _size_if_flawless(found)
    if size is None or (0 not in recorded and recorded != size) or not names.claim(found, path):
        draft.drop_image(image, f"the file is not there, and {quote(other)} cannot be taken for it")
        return
    old = draft.raw.file_names[image]
    new = os.path.join(os.path.dirname(old), other)
    if draft.raw.format == "voc":  # whose images have the name of their annotation
        new = os.path.splitext(old)[0] + os.path.splitext(other)[1].lower()
    draft.origins[image], draft.names[image], draft.sizes[image] = found, new, size
    draft.touched.add(image)
    draft.note_image(image, f"the file is not there: {quote(other)} is taken for it")


def _size_if_flawless(path: str) -> Size | None:
    try:
        size = Size(*read_image(path).shape[:2])
    except ImageError:
        return None
    return size if orientation_of(path) == 1 and has_right_suffix(path) else None


def _tell_apart(draft: Draft, images: list[int]) -> None:
    """Gives images ids of their own, unless they are the same record again."""
    raw, first_of = draft.raw, _first_places(draft.raw.image_ids)
    taken, number = set(raw.image_ids), max((item for item in raw.image_ids if isinstance(item, int)), default=0)
    for image in images:
        old = raw.image_ids[image]
        if raw.format == "yolo":
            draft.drop_image(image, "its objects cannot be told from those of another image")
        elif raw.file_names[image] == raw.file_names[first_of[old]]:
            draft.drop_image(image, "the same record is there twice")
        elif draft.kept_images[image]:
            number += 1
            new = number if isinstance(old, int) else next(n for n in _numbered(old) if n not in taken)
            taken.add(new)
            draft.new_ids[image] = new
            first = quote(raw.file_names[first_of[old]])
            what = f"its id is also that of {first}, which keeps the objects of both: the new id is {quote(new)}"
            draft.note_image(image, what)


def _numbered(text: str) -> Iterator[str]:
    return (f"{text}_{number}" for number in count(2))


def _first_places(values: Sequence[ImageId]) -> dict[ImageId, int]:
    return {value: place for place, value in reversed(list(enumerate(values)))}


def _merge(draft: Draft, images: list[int]) -> None:
    """Gives the objects of images that are listed again to the first of the same file."""
    raw, first_of = draft.raw, _first_places(draft.raw.file_names)
    for image in images:
        first, rows = first_of[raw.file_names[image]], draft.rows_of(image)
        if draft.kept_images[image] and draft.kept_images[first] and rows:
            draft.owners[rows] = first
            draft.touched.add(first)
            draft.note_image(image, f"its {len(rows)} objects go to {raw.image_records[first]}, of the same file")
        draft.drop_image(image, "the file is listed twice")


def _rename(draft: Draft, image: int, names: Names) -> None:
    if draft.kept_images[image]:
        right = right_suffix(draft.raw.path(image))
        draft.names[image] = names.with_suffix(draft.raw.folder, draft.raw.file_names[image], right)
        draft.note_image(image, f"renamed to {quote(draft.names[image])}, as the file's format is")


def _correct_name(draft: Draft, image: int) -> None:
    if draft.kept_images[image]:
        draft.named_right.add(image)
        file = os.path.basename(draft.name(image))
        draft.note(draft.raw.annotation_files[image], "", f"<filename> corrected to {quote(file)}")


def _record_size(draft: Draft, image: int) -> None:
    if not draft.kept_images[image]:
        return
    size = draft.size(image)
    draft.new_sizes[image] = size
    height, width = draft.raw.sizes[image].tolist()
    old = f"{width} x {height}" if height else "that is no number of pixels"
    new = f"{size.width} x {size.height}" if size else "none, since the file's is not known"
    draft.note_image(image, f"recorded size {old} -> {new}")


def _turn(draft: Draft, image: int, boxes_too: bool) -> None:
    """Has an image written upright, and its boxes turned with it where they were drawn without the turn."""
    size = draft.size(image)
    if not draft.kept_images[image] or size is None:
        return
    draft.upright.add(image)
    draft.note_image(image, "written upright, without the note in EXIF that turns it")
    height, width = draft.raw.sizes[image].tolist()
    if boxes_too and (height, width) != size:
        turn_boxes(draft, image, orientation_of(draft.raw.path(image)), size)
    if height and width and (height, width) != size and image not in draft.new_sizes:
        draft.new_sizes[image] = size
        draft.note_image(image, f"recorded size {width} x {height} -> {size.width} x {size.height}")
