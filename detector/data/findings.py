"""What can be amiss in a data set: each kind of finding with its weight and its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        title: what was found, in the plural.
        severity: "error" stops a training or spoils it, "warning" is likely a mistake, "note" is worth knowing.
        remedy: what to do.
        mended: ``--fix`` does it.
    """

    title: str
    severity: Severity
    remedy: str
    mended: bool = False


@dataclass(frozen=True)
class Finding:
    """One thing that is amiss.

    Attributes:
        kind: a key of ``KINDS``.
        split: the split it was found in, such as "train"; of a finding about two splits, the first.
        file: the file that holds the fault.
        record: the record within that file, such as "annotations[4] (id 17)"; empty for the whole file.
        what: what is wrong, with the numbers; one line.
        image: the image's index in its ``RawSet``, -1 for none.
        row: the object's row in its ``RawSet``, -1 for none.
        other: the other image's file, of a finding about two.
    """

    kind: str
    split: str
    file: str
    record: str
    what: str
    image: int = -1
    row: int = -1
    other: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: {self.what}" if self.record else f"{self.file}: {self.what}"


KINDS: dict[str, Kind] = {
    # What the annotation files say.
    "annotation-unreadable": Kind(
        "Annotations that cannot be read", "error", "Correct the record or take it out.", mended=True
    ),
    "annotation-missing": Kind(
        "Images without an annotation file", "error", "Write the file, or take the name off the split.", mended=True
    ),
    "box-unreadable": Kind(
        "Boxes that are no four finite numbers", "error", "Draw the box again or take it out.", mended=True
    ),
    "unknown-image": Kind(
        "Annotations of images that are not listed", "error", "List the image or take the annotation out.", mended=True
    ),
    "unknown-category": Kind(
        "Annotations of categories that are not declared", "error", "Declare the category or take it out.", mended=True
    ),
    "image-id-twice": Kind(
        "Image ids that stand for several images", "error", "Give each image an id of its own.", mended=True
    ),
    "category-twice": Kind(
        "Category ids or names that are there twice", "error", "Give each category an id and a name of its own."
    ),
    "annotation-id-twice": Kind(
        "Annotation ids that are there twice or 0",
        "warning",
        "Number annotations from 1: pycocotools loses matches otherwise (this toolkit does not).",
        mended=True,
    ),
    "file-name-twice": Kind("Files that are listed twice", "error", "List each image once.", mended=True),
    "file-name-unsafe": Kind(
        "File names that leave the images folder", "error", "Name files relative to the images folder.", mended=True
    ),
    "recorded-name-differs": Kind(
        "Annotations that name another file", "warning", "Correct <filename>; is the annotation of this image?",
        mended=True,
    ),
    "recorded-size-differs": Kind(
        "Images whose recorded size differs from the file's",
        "error",
        "Correct the size, or put back the image that the boxes were drawn on.",
        mended=True,
    ),
    # Image files.
    "image-missing": Kind("Images that are not there", "error", "Fetch the file or take its record out.", mended=True),
    "image-unlisted": Kind(
        "Image files that no annotation names", "warning", "List them (without objects if none are there) or remove."
    ),
    "image-empty": Kind("Empty image files", "error", "Fetch the file again or take it out.", mended=True),
    "image-truncated": Kind("Images that are cut off", "error", "Fetch them again or take them out.", mended=True),
    "image-unreadable": Kind("Files that are no readable image", "error", "Replace or remove them.", mended=True),
    "image-oversized": Kind(
        "Images of more pixels than are allowed", "error", "Shrink the image, or raise data.max_image_pixels."
    ),
    "image-mislabelled": Kind(
        "Images whose name claims another format", "warning", "Rename them; some programs trust the name.", mended=True
    ),
    "image-rotated": Kind(
        "Images that EXIF turns",
        "warning",
        "This toolkit turns them upright; look whether the boxes fit, since some labelling tools do not.",
        mended=True,
    ),
    "boxes-not-turned": Kind(
        "Images whose boxes fit only before EXIF turns them",
        "error",
        "Take the orientation out of the file (the image then lies as it was labelled), or turn the boxes.",
        mended=True,
    ),
    "image-unusual": Kind(
        "Images that are not 8-bit RGB or gray", "note", "Nothing: they are converted (16 bits scaled, alpha dropped)."
    ),
    "image-extreme": Kind(
        "Images that are tiny or very long", "warning", "Crop or tile them; resizing leaves little of their short side."
    ),
    "image-twice": Kind("Images that are there twice", "warning", "Keep one of them.", mended=True),
    "image-nearly-twice": Kind("Images that are nearly the same", "warning", "Keep one, unless both are meant."),
    "image-in-two-splits": Kind(
        "Images that are in two splits", "error", "Take them out of training: scores would be too good.", mended=True
    ),
    "image-nearly-in-two-splits": Kind(
        "Images with a near-duplicate in another split",
        "warning",
        "Split again with split_dataset.py, which keeps near-duplicates together.",
    ),
    "split-incomplete": Kind(
        "Annotated images that no split lists", "warning", "Add them to a split, or remove them."
    ),
    # Boxes.
    "box-reversed": Kind("Boxes that are reversed", "error", "Swap the corners.", mended=True),
    "box-without-area": Kind("Boxes without area", "error", "Draw the box again or take it out.", mended=True),
    "box-outside": Kind("Boxes outside their image", "error", "Draw the box again or take it out.", mended=True),
    "box-partly-outside": Kind("Boxes that reach over the edge", "warning", "Clip them to the image.", mended=True),
    "box-tiny": Kind(
        "Boxes of less than 4 pixels after the resize", "warning", "Raise data.resize or tile the images."
    ),
    "box-whole-image": Kind(
        "Boxes that cover their whole image", "warning", "Look whether they mark an object or label the image."
    ),
    "boxes-are-corners": Kind(
        "Files whose boxes look like corners", "error", "COCO boxes are [x, y, width, height], not two corners.",
        mended=True,
    ),
    "box-twice": Kind("Objects that are annotated twice", "warning", "Keep one of them.", mended=True),
    "box-of-two-classes": Kind("Boxes that carry two classes", "warning", "Keep the right one."),
    # Classes and counts.
    "class-unused": Kind("Classes without any object", "warning", "Leave them out, or mend their spelling."),
    "class-absent": Kind(
        "Classes that a split lacks", "warning", "Split again (split_dataset.py) or leave them out (data.classes)."
    ),
    "class-rare": Kind("Classes of fewer than 10 objects in training", "warning", "Label more, or merge them."),
    "class-alike": Kind("Class names that are nearly the same", "warning", "Merge them with data.classes."),
    "classes-differ": Kind("Splits that declare different classes", "error", "Set data.classes, or mend the files."),
    "class-imbalance": Kind(
        "Classes far more frequent than others", "note", "data.sampling=repeat_factor shows rare classes more often."
    ),
    "no-objects": Kind("Images without objects", "note", "Nothing: they are trained on as background."),
    "crowd": Kind("Crowd regions", "note", "Nothing: they are scored as COCO does and not trained on."),
    "difficult": Kind("Difficult objects", "note", "Nothing: they are trained on and ignored in VOC scoring."),
    "many-objects": Kind(
        "Images of more than 100 objects",
        "warning",
        "model.roi_head.detections_per_image and COCO's metrics stop at 100; raise the first, or tile the images.",
    ),
    # What the detector makes of it.
    "anchors-miss": Kind(
        "Anchors that miss objects", "warning", "Set the suggested model.anchors and data.resize; see the report."
    ),
    "self-test": Kind(
        "Ground truth that does not score 1 as detections", "error", "Please report this: scores cannot be trusted."
    ),
}  # fmt: skip


def most_severe_first(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings by kind: errors, warnings, notes, and each in the order of ``KINDS``."""
    groups: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
    for finding in findings:
        groups[finding.kind].append(finding)
    ranks = ("error", "warning", "note")
    kinds = sorted(groups, key=lambda kind: ranks.index(KINDS[kind].severity))
    return {kind: groups[kind] for kind in kinds if groups[kind]}


def has_faults(findings: Sequence[Finding]) -> bool:
    """Whether there is anything beyond notes."""
    return any(KINDS[finding.kind].severity != "note" for finding in findings)
