"""The settings of data: the sets, the resize rule, augmentation, and how images reach the network."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from detector.config.section import Count, CountOrZero, Fraction, Name, NotNegative, Pixels, Section


class CocoSet(Section):
    """A data set in COCO's "instances" format."""

    format: Literal["coco"]
    images: Name = Field(description="folder of the images")
    annotations: Name = Field(description="JSON file")


class VocSet(Section):
    """A data set in PASCAL VOC's layout: Annotations/, ImageSets/Main/SPLIT.txt, JPEGImages/."""

    format: Literal["voc"]
    root: Name = Field(description="folder that holds Annotations/, ImageSets/ and JPEGImages/")
    split: Name = Field(description="name of a list in ImageSets/Main, such as trainval")


class ShapesSet(Section):
    """The built-in data set of drawn shapes; nothing is read from disk."""

    format: Literal["shapes"]
    images: Count
    seed: CountOrZero = 0
    size: tuple[Pixels, Pixels] = Field((192, 256), description="height, width")
    hard: bool = Field(False, description="colours say nothing about the class, backgrounds are busy")


class FolderSet(Section):
    """Images for a classifier: one folder a class, which names it."""

    format: Literal["folder"]
    root: Name = Field(description="folder that holds a folder for each class")


class CifarSet(Section):
    """CIFAR-10 or CIFAR-100 in their published files, unpacked."""

    format: Literal["cifar10", "cifar100"]
    root: Name = Field(description="folder of the files, or the one that holds cifar-10-batches-py, say")
    split: Literal["train", "test"]


class CropsSet(Section):
    """Images for a classifier: the objects of a detection set, cut out, each of the class of its box."""

    format: Literal["crops"]
    of: Annotated[CocoSet | VocSet | ShapesSet, Field(discriminator="format")]
    context: NotNegative = Field(0.1, description="added on each side of a box, as a share of its longer side")
    min_side: Count = Field(8, description="boxes with a shorter side than so many pixels are left out")


DataSet = Annotated[
    CocoSet | VocSet | ShapesSet | FolderSet | CifarSet | CropsSet,
    Field(discriminator="format", description="folder, cifar10, cifar100 and crops are for pretrain.py"),
]


class ResizeConfig(Section):
    """The resize rule: the short side becomes the given length unless the long side would pass its limit."""

    train_short_side: Annotated[tuple[Pixels, ...], Field(min_length=1)] = Field(
        (640, 672, 704, 736, 768, 800), description="one is drawn for each image"
    )
    test_short_side: Pixels = 800
    max_long_side: Pixels = 1333


class CropConfig(Section):
    """What a classifier sees of a resized image: a square, at random in training, from the centre in evaluation."""

    size: Pixels = Field(224, description="side of the square, in pixels")
    padding: CountOrZero = Field(0, description="pixels added on each side before a random crop (CIFAR: 4)")
    random: bool = Field(True, description="false takes the square from the centre in training, too")

    @model_validator(mode="after")
    def _crops_hold_something(self) -> Self:
        if self.padding >= self.size:
            raise ValueError(f"padding {self.padding} must be smaller than size {self.size}")
        return self


class Augmentation(Section):
    """One transform of albumentations, by its class name, with the arguments of its constructor."""

    name: Name
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _arguments_are_finite(self) -> Self:
        try:
            json.dumps(self.arguments, allow_nan=False)
        except ValueError:
            raise ValueError("arguments must hold finite numbers") from None
        return self


class ClassGroup(Section):
    """A class made of several of the data set's, or one under another name."""

    name: Name = Field(description="of the class")
    merge: Annotated[tuple[Name, ...], Field(min_length=1)] = Field(description="names in the data set that mean it")


ClassEntry = Annotated[
    Annotated[Name, Tag("name")] | Annotated[ClassGroup, Tag("group")],
    Discriminator(lambda entry: "group" if isinstance(entry, dict | ClassGroup) else "name"),
]


class DataConfig(Section):
    """What is read and how images reach the network."""

    train: tuple[DataSet, ...] = ()
    val: tuple[DataSet, ...] = ()
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=1)] | None = Field(
        None,
        description="class names in order, others are left out; {name: vehicle, merge: [car, bus]} makes one of "
        "several, or renames one; null takes those of the training sets",
    )
    sampling: Literal["uniform", "repeat_factor", "class_balanced"] = Field(
        "uniform",
        description="each image once an epoch; or images of rare classes more often (LVIS: by the root of "
        "repeat_threshold / share of images); or each class equally often",
    )
    repeat_threshold: Fraction = Field(
        0.001, description="of repeat_factor: classes in a smaller share of the images are repeated"
    )
    resize: ResizeConfig = ResizeConfig()
    crop: CropConfig = CropConfig()
    holdout: Fraction = Field(
        0.2, description="share of data.train that pretrain.py evaluates on where data.val lists nothing"
    )
    horizontal_flip: Fraction = Field(0.5, description="probability that a training image is mirrored")
    augmentations: tuple[Augmentation, ...] = ()
    group_by_aspect_ratio: bool = Field(True, description="wide and tall images go into separate batches")
    on_bad_box: Literal["error", "drop"] = Field(
        "error", description="a box without area or outside its image stops the run, or is left out and counted"
    )
    on_bad_sample: Literal["error", "skip"] = Field(
        "error", description="an image that cannot be read stops the run, or is replaced by the next and noted"
    )
    max_bad_fraction: Fraction = Field(0.01, description="of the images; more of them stop the run all the same")
    reduced_decoding: bool = Field(
        False,
        description="in training decode JPEGs of twice the needed size or more at a half, a quarter or an eighth: "
        "much faster for large photos, pixels differ a little; augmentations get the smaller image; crops of objects "
        "are cut from the whole image all the same",
    )
    workers: Annotated[int, Field(ge=0, le=256)] = Field(2, description="processes that prepare images")
    worker_timeout: Count = Field(300, description="seconds after which a worker that gives nothing counts as hung")
    max_image_pixels: Annotated[int, Field(ge=1, le=178_000_000)] = Field(
        64_000_000, description="larger images are refused before they are decoded (Pillow's own limit is 178 million)"
    )

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> Self:
        names: list[str] = []
        for item in self.classes or ():
            names += {item.name, *item.merge} if isinstance(item, ClassGroup) else [item]
        if len(set(names)) < len(names):
            raise ValueError("classes holds a name twice")
        return self

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of ``classes``."""
        if self.classes is None:
            return None
        return tuple(item.name if isinstance(item, ClassGroup) else item for item in self.classes)
