"""Images that are there several times: in one split, or in two."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence

from detector.data.doctor.mending.draft import Draft
from detector.data.doctor.split_checks import is_summary, parts_of, paths_of
from detector.data.findings import Finding
from detector.errors import DatasetError, quote


def settle_shared(drafts: Sequence[Draft], found: Sequence[dict[str, list[Finding]]]) -> None:
    """Takes out the images that were reported; these are the later ones of a split, and those of the first of two.

    Pictures that look the same but are different files stay, for a person to decide: in those of a fixed camera
    something small may have moved. Splits stand in the order train, val, test, so that what is in two of them leaves
    training.

    Args:
        drafts: of all splits.
        found: their findings by kind.

    Raises:
        DatasetError: nothing would be left of a split.
    """
    raws, paths = [draft.raw for draft in drafts], [paths_of(draft.raw) for draft in drafts]
    summaries = [number for number in range(len(drafts)) if is_summary(number, raws, paths)]
    for number, (draft, kinds) in enumerate(zip(drafts, found, strict=True)):
        if number not in summaries:
            for kind in ("image-twice", "image-in-two-splits"):
                _drop(draft, kinds.get(kind, ()))
    for number in summaries:
        _follow_parts(drafts, number, paths)


def _drop(draft: Draft, findings: Sequence[Finding]) -> None:
    if not findings:
        return
    for finding in findings:
        if not finding.other or _are_equal(finding.file, finding.other):
            draft.drop_image(finding.image, finding.what)
    if not draft.kept_images.any():
        raise DatasetError(
            f"{quote(draft.raw.split)}: all its images are in another split, too, so that nothing would be left; "
            "take one of the two out of the data set, then mend it"
        )


def _are_equal(one: str, other: str) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _follow_parts(drafts: Sequence[Draft], number: int, paths: Sequence[dict[str, int]]) -> None:
    """A split that is others taken together, such as VOC's trainval, goes on being that."""
    kept: dict[str, bool] = {}
    for part in parts_of(number, [draft.raw for draft in drafts]):
        for path, image in paths[part].items():
            kept[path] = kept.get(path, False) or bool(drafts[part].kept_images[image])
    for path, image in paths[number].items():
        if not kept.get(path, True):
            drafts[number].drop_image(image, "no longer in any of the splits that this one joins")
