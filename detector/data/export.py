"""A data set written to disk in COCO's or VOC's format."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from detector.data.dataset import DetectionDataset
from detector.structures import Annotations, Sample


def coco_content(annotations: Annotations) -> dict[str, list[dict[str, object]]]:
    """Ground truth as the content of a COCO "instances" file, without names and sizes of images."""
    images = annotations.image_index().tolist()
    return {
        "images": [{"id": image_id} for image_id in annotations.image_ids],
        "categories": [
            {"id": category_id, "name": name}
            for category_id, name in zip(annotations.category_ids, annotations.class_names, strict=True)
        ],
        "annotations": [
            {
                "id": row + 1,
                "image_id": annotations.image_ids[image],
                "category_id": annotations.category_ids[annotations.labels[row]],
                "bbox": annotations.boxes_xywh[row].tolist(),
                "area": float(annotations.areas[row]),
                "iscrowd": int(annotations.crowd[row]),
                "difficult": int(annotations.difficult[row]),
            }
            for row, image in enumerate(images)
        ],
    }


def write_coco(dataset: DetectionDataset, folder: Path) -> None:
    """Writes ``images/`` as PNG and ``annotations.json``."""
    content = coco_content(dataset.annotations)
    for index, record in enumerate(content["images"]):
        sample = dataset[index]
        record |= {
            "file_name": _write_png(sample, folder / "images", index),
            "height": sample.size.height,
            "width": sample.size.width,
        }
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def write_voc(dataset: DetectionDataset, folder: Path, split: str) -> None:
    """Writes ``JPEGImages/`` as PNG, ``Annotations/`` and ``ImageSets/Main/SPLIT.txt``.

    VOC counts whole pixels from 1, so boxes are rounded outwards to the pixels that they touch.
    """
    names = []
    class_names = dataset.annotations.class_names
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for index in range(len(dataset)):
        sample = dataset[index]
        name = Path(_write_png(sample, folder / "JPEGImages", index)).stem
        _xml(sample, name, class_names).write(folder / "Annotations" / f"{name}.xml", encoding="utf-8")
        names.append(name)
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def _write_png(sample: Sample, folder: Path, index: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{index:06d}.png"
    Image.fromarray(sample.image).save(folder / name)
    return name


def _xml(sample: Sample, name: str, class_names: tuple[str, ...]) -> ElementTree.ElementTree[ElementTree.Element]:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.png"
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", sample.size.width), ("height", sample.size.height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for box, label, difficult in zip(sample.boxes.tolist(), sample.labels.tolist(), sample.difficult, strict=True):
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = class_names[label]
        ElementTree.SubElement(item, "difficult").text = str(int(difficult))
        corners = ElementTree.SubElement(item, "bndbox")
        x1, y1, x2, y2 = box
        pixels = {"xmin": int(x1) + 1, "ymin": int(y1) + 1, "xmax": -int(-x2 // 1), "ymax": -int(-y2 // 1)}
        for tag, pixel in pixels.items():
            ElementTree.SubElement(corners, tag).text = str(pixel)
    return ElementTree.ElementTree(root)
