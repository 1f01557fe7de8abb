"""A mended COCO file: what the toolkit does not use stays as it is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from detector.data.doctor.mending.draft import Draft
from detector.strict_json import read_json

_DECIMALS = 6  # of a pixel; sums of the file's decimals have more


def write_coco(draft: Draft, path: Path) -> None:
    """Writes the annotations of a split.

    Args:
        draft: says what becomes of them.
        path: of the new file.

    Raises:
        OSError: as the system reports it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if draft.is_unchanged():
        shutil.copy2(draft.raw.source, path)
        return
    content = read_json(draft.raw.source)
    content["images"] = _images(draft, content["images"])
    content["annotations"] = _annotations(draft, content["annotations"])
    gone = {record for _, record in draft.unread}
    content["categories"] = [
        record for position, record in enumerate(content["categories"]) if f"categories[{position}]" not in gone
    ]
    path.write_text(json.dumps(content), encoding="utf-8")


def _images(draft: Draft, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for image in draft.images():
        record = records[_position(draft.raw.image_records[image])]
        if image in draft.names:
            record["file_name"] = draft.names[image]
        if image in draft.new_ids:
            record["id"] = draft.new_ids[image]
        size = draft.new_sizes.get(image)
        if size:
            record |= {"height": size.height, "width": size.width}
        elif image in draft.new_sizes:
            record.pop("height", None)
            record.pop("width", None)
        kept.append(record)
    return kept


def _annotations(draft: Draft, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept, raw = [], draft.raw
    for row in draft.kept().nonzero()[0].tolist():
        record = records[raw.positions[row]]
        if draft.owners[row] != raw.images[row]:
            record["image_id"] = raw.image_ids[draft.owners[row]]
        if row in draft.redrawn:
            record["bbox"] = [_plain(value) for value in draft.boxes[row].tolist()]
        if row in draft.turned:
            record.pop("segmentation", None)  # it is that of the image before the turn
        kept.append(record)
        if draft.renumbered:
            record["id"] = len(kept)
    return kept


def _position(place: str) -> int:
    """The number in "images[3] (id 17)"."""
    found = re.match(r"images\[(\d+)\]", place)
    assert found, place
    return int(found[1])


def _plain(value: float) -> float:
    rounded = round(value, _DECIMALS)
    return int(rounded) if rounded.is_integer() else rounded
