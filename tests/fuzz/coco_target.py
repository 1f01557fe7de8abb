"""COCO "instances" files, opened for training and read for scoring."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from detector.data.coco import open_coco, read_coco_annotations
from detector.data.dataset import FileDataset
from tests.fuzz import json_text, raw_bytes
from tests.fuzz.cases import Case, Reading
from tests.fuzz.coco_validator import Expected, Wanted, compare, compare_sample
from tests.fuzz.json_text import HOSTILE, Raw, change_list, change_record

_RECORD = r"(images|annotations|categories)\[\d+\]|no such image file|its annotation says"
_NAMES = (
    "../outside.png", "a/../../outside.png", "/etc/passwd", "C:\\a.png", "C:a.png", "..\\outside.png", "\\\\host\\a",
    "..", ".", "./a.png", "b/../a.png", "a.png/", "A.PNG", "a.png\0", "\x1b]0;owned\x07.png", "a\nb.png", "\ud800.png",
    "x" * 300 + ".png", "b//c.jpg", "~/a.png", "$HOME/a.png", "file:///etc/passwd", "http://a/b.png", "CON", "b", "",
    "b/./c.jpg", "%2e%2e/outside.png", "．．/outside.png", "/" * 5000, "b/" * 3000 + "a.png",
)  # fmt: skip
_BOXES: tuple[Any, ...] = (
    [10, 10, -5, 5], [10, 10, 5, -5], [10, 10, 0, 5], [10, 10, 5, 0], [1e308, 0, 1e308, 1e308], [0, 0, 1e308, 1e308],
    [-1e9, -1e9, 2e9, 2e9], [1000, 1000, 10, 10], [-50, -50, 10, 10], [-5, -5, 10, 10], [0, 0, 32, 24], [0, 0, 33, 25],
    [31.5, 23.5, 100, 100], [32, 24, 1, 1], [20, 10, 10, 5], [0, 0, 5e-324, 5e-324], [1, 2, 3], [1, 2, 3, 4, 5], [],
    None,
    "1,2,3,4", [[1, 2, 3, 4]], {"x": 1}, [1, 2, 3, True], [1, 2, 3, None], [1, 2, 3, "4"], [1e15, 0, 1, 1],
    [5, 30, 5, 5],
    [24, 32, 4, 4], [30, 0, 1e10, 1e10], [-0.0, -0.0, 1, 1], [1e9, 1e9, 1, 1], [0.1, 0.2, 0.3, 0.4], [-10, 0, 10, 5],
)  # fmt: skip

Change = Callable[[Random, dict[str, Any]], tuple[str, str | None]]


class CocoTarget:
    """Files derived from a small synthetic one, and from real ones where these are at hand."""

    name = "coco"

    def __init__(self, folder: Path, shared: Path | None) -> None:
        self.folder = folder
        (folder / "images" / "b").mkdir(parents=True)
        sizes = {"a.png": (24, 32), "b/c.jpg": (24, 32), "d é.png": (48, 20), "turned.jpg": (32, 24), "e.png": (9, 9)}
        for name, (height, width) in sizes.items():
            if name == "turned.jpg":
                exif = Image.Exif()
                exif[0x0112] = 6
                Image.new("RGB", (height, width), (9, 99, 200)).save(folder / "images" / name, exif=exif)
            else:
                Image.new("RGB", (width, height), (200, 99, 9)).save(folder / "images" / name)
        Image.new("RGB", (5, 5)).save(folder / "outside.png")
        self.sizes = dict(sizes)
        self.bases = [_synthetic(), _texts_for_ids(_synthetic()), *_real(folder, shared, self.sizes)]

    def case(self, random: Random) -> Case:
        """One to three changes of records, of lists, of the text or of its bytes."""
        content = copy.deepcopy(random.choice(self.bases))
        case = Case(arguments={"classes": _classes(random, content), "drop": random.random() < 0.3})
        records: list[str | None] = []
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            note, record = random.choice(_CHANGES)(random, content)
            case.notes.append(note)
            records.append(record)
        if len(records) == 1 and case.arguments["classes"] is None:
            case.record = records[0]
        text = json_text.write(content)
        data = text.encode("utf-8", "surrogatepass")
        kind = random.random()
        if kind < 0.15:
            data, note = raw_bytes.mutate(random, data, json.dumps(self.bases[0]).encode())
        elif kind < 0.2:
            data, note = raw_bytes.reencode(random, text)
        if kind < 0.2:
            case.notes.append(note)
            case.record = None
        case.files["annotations.json"] = data
        return case

    def readings(self, case: Case) -> Sequence[Reading]:
        """Both ways a file is read."""
        images, path = self.folder / "images", self.folder / "annotations.json"
        data = case.files["annotations.json"]
        assert data is not None
        content = json_text.Strict(data)
        training = Wanted(case.arguments["classes"], case.arguments["drop"], self.sizes, images)
        for_training, for_scoring = Expected(content, training), Expected(content, Wanted(scoring=True))
        return (
            Reading(
                "open_coco",
                lambda: _opened(open_coco(images, path, training.classes, training.drop, 10_000_000)),
                lambda found: compare(for_training, found[0].annotations) + compare_sample(for_training, *found),
                for_training.sound,
                (str(path), str(images)),
            ),
            Reading(
                "read_coco_annotations",
                lambda: read_coco_annotations(path),
                lambda found: compare(for_scoring, found),
                for_scoring.sound,
                (str(path),),
            ),
        )


def _opened(dataset: FileDataset) -> tuple[FileDataset, Any]:
    """The data set, and one of its samples, which may be refused for itself."""
    index = len(dataset) // 2
    return dataset, dataset[index]


def _synthetic() -> dict[str, Any]:
    images: list[dict[str, Any]] = [
        {"id": 1, "file_name": "a.png", "height": 24, "width": 32},
        {"id": 5, "file_name": "b/c.jpg", "height": 24, "width": 32, "license": 3},
        {"id": 3, "file_name": "d é.png", "height": 48, "width": 20},
        {"id": 12, "file_name": "turned.jpg", "height": 24, "width": 32},
        {"id": 0, "file_name": "e.png"},
    ]
    boxes: dict[int, list[list[float]]] = {
        1: [[2, 3, 10, 10], [0, 0, 32, 24], [20.5, 10.25, 11.5, 13.75]],
        5: [[-1, -1, 12, 12]],
        12: [[1, 10, 20, 21]],
        3: [[1, 40, 5, 5], [0.1, 0.2, 0.3, 0.7]],
    }
    annotations: list[dict[str, Any]] = []
    for image_id, found in boxes.items():
        for box in found:
            number = len(annotations)
            annotations.append(
                {"id": number, "image_id": image_id, "category_id": (7, 2, 90)[number % 3], "bbox": box, "area": 12.5,
                 "iscrowd": int(number == 4), "segmentation": [[1, 2, 3.5, 4, 5, 6]], "difficult": int(number == 2)}
            )  # fmt: skip
    annotations[1].pop("area")
    annotations[2].pop("iscrowd")
    categories = [{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 90, "name": "Zebra é"}]
    return {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": categories}


def _texts_for_ids(content: dict[str, Any]) -> dict[str, Any]:
    """The same with texts instead of numbers, and no sizes."""
    for image in content["images"]:
        image["id"] = f"image {image['id']}"
        image.pop("height", None)
        image.pop("width", None)
    for annotation in content["annotations"]:
        annotation["image_id"] = f"image {annotation['image_id']}"
    return content


def _real(folder: Path, shared: Path | None, sizes: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Real files cut down to a few images."""
    found = []
    for split in ("train", "val") if shared else ():
        source = Path(shared or "") / "data/coco_by"
        content = json.loads((source / f"annotations/instances_{split}2017.json").read_text(encoding="utf-8"))
        content["images"] = content["images"][:3]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [item for item in content["annotations"] if item["image_id"] in kept][:25]
        for image in content["images"]:
            target = folder / "images" / image["file_name"]
            target.write_bytes((source / f"{split}2017" / image["file_name"]).read_bytes())
            sizes[image["file_name"]] = (image["height"], image["width"])
        found.append(content)
    return found


def _classes(random: Random, content: dict[str, Any]) -> list[str] | None:
    if random.random() < 0.7:
        return None
    names = [item["name"] for item in content["categories"]]
    random.shuffle(names)
    return names[: random.randrange(1, 4)] + random.choice(([], ["unheard of"]))


def _record(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    key = random.choice(("images", "annotations", "annotations", "categories"))
    if not isinstance(content.get(key), list) or not content[key]:
        return "nothing", None
    position = random.randrange(len(content[key]))
    if not isinstance(content[key][position], dict):
        return "nothing", None
    note = change_record(random, content[key], position)
    return f"{key}[{position}]: {note}", None


def _list(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    key = random.choice(("images", "annotations", "categories"))
    if not isinstance(content.get(key), list):
        return "nothing", None
    return f"{key}: {change_list(random, content[key])}", None


def _pick(random: Random, content: dict[str, Any], key: str) -> dict[str, Any]:
    records = content.get(key)
    fitting = [item for item in records if isinstance(item, dict)] if isinstance(records, list) else []
    return random.choice(fitting) if fitting else {}


def _file_name(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    name = random.choice(_NAMES)
    _pick(random, content, "images")["file_name"] = name
    return f"file_name {name[:60]!a}", _RECORD


def _box(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    box = random.choice(_BOXES)
    _pick(random, content, "annotations")["bbox"] = box
    return f"bbox {box}", _RECORD


def _id(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    key = random.choice(("images", "annotations", "categories"))
    record, other = _pick(random, content, key), _pick(random, content, key)
    field = random.choice(("image_id", "category_id")) if key == "annotations" else "id"
    own = other.get(field)
    as_float = float(own) if isinstance(own, int) and abs(own) < 1e6 else 1.0
    record[field] = random.choice((own, str(own), as_float, [own], True, -1, 2**63, 2**64 - 1, -(2**63), 10**30, "٣"))
    return f"{key}: {field} {record[field]!a:.60}", _RECORD


def _name(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    name = random.choice(("cat", "Cat", "cat ", "", "\ud800", "\x1b[2J", "a\nb", "x" * 100_000, "<b>", "é", "\0", 5))
    _pick(random, content, "categories")["name"] = name
    return f"name {str(name)[:60]!a}", _RECORD


def _flag(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    key = random.choice(("iscrowd", "difficult", "area"))
    value: Any = random.choice(
        (True, False, 1.0, 0.0, 2, -1, "1", [], None, 0.5, 1e300, 10**400, Raw("1e0"), Raw("-0"))
    )
    _pick(random, content, "annotations")[key] = value
    return f"{key} {value!a:.60}", _RECORD


def _size(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    record = _pick(random, content, "images")
    key = random.choice(("height", "width"))
    record[key] = random.choice(
        (0, -1, 1, 24.0, 24.5, 1e6, 10**6 + 1, 1e308, "24", None, True, 10**30, 32, 24, 48, 3000)
    )
    return f"{key} {record[key]!a:.60}", None


def _top(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    key = random.choice(("images", "annotations", "categories", "info", "x"))
    operation = random.choice(("value", "remove", "twice", "escaped"))
    if operation == "remove":
        content.pop(key, None)
    elif operation == "twice":
        content["info"] = Raw(f'1, "{key}": {json_text.write(random.choice(HOSTILE))}')
    elif operation == "escaped":
        content["info"] = Raw(f'1, "\\u{ord(key[0]):04x}{key[1:]}": []')
    else:
        content[key] = random.choice(HOSTILE)
    return f"{operation} {key}", None


def _within_text(random: Random, content: dict[str, Any]) -> tuple[str, str | None]:
    """What looks like records, keys or the end of a record stands within texts."""
    record = _pick(random, content, random.choice(("images", "annotations", "categories")))
    text = random.choice(('}, {"id": 1', '"bbox"', "}\n,\n{", '"image_id": 5}, {"image_id": 1', "]}", '"images"', "\\"))
    record[random.choice(("license", "caption", "attributes"))] = random.choice((text, [text], {"bbox": text}))
    return f"text {text!a}", None


_CHANGES: tuple[Change, ...] = (
    _record, _record, _record, _record, _list, _file_name, _box, _box, _box, _id, _id, _name, _flag, _flag, _size, _top,
    _within_text,
)  # fmt: skip
