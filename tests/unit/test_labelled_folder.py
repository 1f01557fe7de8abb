"""Images in one folder a class, joined, chosen by class, and divided for evaluation."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detector.config import Config, parse_config
from detector.config.data_schema import ShapesSet
from detector.data.classification.build import open_labelled, open_labelled_for_training
from detector.data.classification.drawn import open_drawn
from detector.data.classification.folder import FolderDataset, open_folder
from detector.data.classification.holdout import without_held_out
from detector.data.dataset import DetectionDataset, check_dataset
from detector.data.reduced_decoding import with_reduced_decoding
from detector.errors import ConfigError, DatasetError
from tests.tiny import tiny_config


def write(root: Path, *names: str) -> Path:
    """Images of 6 x 4 pixels, each of a colour of its own, and empty files under other names."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg"):
            Image.new("RGB", (6, 4), (number, 100, 200)).save(path)
        else:
            path.touch()
    return root


def pets(root: Path, images: int = 3) -> Path:
    return write(root, *(f"{kind}/{number}.png" for kind in ("dog", "cat") for number in range(images)))


def opened(root: Path, classes: list[str] | None = None) -> FolderDataset:
    return open_folder(root, classes, {}, 1000)


def refusal(root: Path, classes: list[str] | None = None) -> str:
    with pytest.raises(DatasetError) as caught:
        opened(root, classes)
    message = str(caught.value)
    assert message.isprintable()
    return message


def config(*roots: Path, more: str = "") -> Config:
    sets = ", ".join(f"{{format: folder, root: {root}}}" for root in roots)
    return parse_config(f"data: {{train: [{sets}], {more}}}", "test.yaml")


def names_of(dataset: DetectionDataset) -> list[str]:
    annotations = dataset.annotations
    return [annotations.class_names[label] for label in annotations.labels.tolist()]


# What is read


def test_it_passes_the_check(tmp_path: Path) -> None:
    check_dataset(opened(pets(tmp_path)))


def test_the_classes_are_the_folders_sorted(tmp_path: Path) -> None:
    assert opened(pets(tmp_path)).annotations.class_names == ("cat", "dog")


def test_an_image_has_the_class_of_its_folder_at_any_depth(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, "b/x/y/1.png", "b/2.jpg", "a/1.png"))
    assert list(dataset.annotations.image_ids) == ["a/1.png", "b/2.jpg", "b/x/y/1.png"]
    assert names_of(dataset) == ["a", "b", "b"]


def test_the_box_is_the_whole_image(tmp_path: Path) -> None:
    sample = opened(pets(tmp_path))[4]
    assert sample.boxes.tolist() == [[0, 0, 6, 4]]
    assert sample.labels.tolist() == [1]


def test_an_image_is_that_of_its_file(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, "b/1.png", "a/1.png"))
    assert dataset[1].image[0, 0].tolist() == [0, 100, 200]
    assert dataset.info(1).path == str(tmp_path / "b" / "1.png")


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(write(pets(tmp_path), "cat/notes.txt", "dog/x/list.csv", "dog/.DS_Store", ".git/a.png", "dog/.hidden/b.png"))
    assert "ignored 2 files" in caplog.text


def test_names_in_capitals_are_images(tmp_path: Path) -> None:
    assert len(opened(write(tmp_path, "a/1.PNG", "b/1.JPG"))) == 2


def test_a_link_to_a_folder_is_followed_but_not_in_circles(tmp_path: Path) -> None:
    pets(tmp_path / "elsewhere")
    root = write(tmp_path / "root", "dog/1.png")
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (root / "dog" / "again").symlink_to(root / "dog")
    assert names_of(opened(root)) == ["cat"] * 3 + ["dog"]


def test_in_training_jpegs_are_decoded_smaller(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    Image.new("RGB", (80, 64)).save(tmp_path / "b" / "1.jpg")
    sample = with_reduced_decoding(open_folder(tmp_path, None, {}, 10_000), 16)[1]
    assert sample.size == (16, 20)
    assert sample.boxes.tolist() == [[0, 0, 20, 16]]


# Chosen classes


def test_given_classes_have_their_order_and_others_are_left_out(tmp_path: Path) -> None:
    dataset = opened(write(pets(tmp_path), "bird/1.png"), ["dog", "cow", "bird"])
    assert dataset.annotations.class_names == ("dog", "cow", "bird")
    assert dataset.annotations.labels.tolist() == [2, 0, 0, 0]


def test_the_log_names_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(pets(tmp_path), ["dog", "cow"])
    assert "left out the classes that are not wanted: 'cat'" in caplog.text


def test_wanted_classes_of_which_none_is_there_are_refused(tmp_path: Path) -> None:
    assert "none of the wanted classes ('cow')" in refusal(pets(tmp_path), ["cow"])


def test_folders_are_merged_by_the_configuration(tmp_path: Path) -> None:
    write(pets(tmp_path), "bird/1.png")
    groups = "holdout: 0, classes: [{name: pet, merge: [cat, dog]}, bird]"
    assert names_of(open_labelled(config(tmp_path, more=groups), "train")) == ["bird"] + ["pet"] * 6


# Wrong layouts


def test_images_without_folders_are_refused(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "1.png")).endswith("holds images but no folders; put them into one folder a class")


def test_an_empty_root_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("holds no folders; images are wanted here, in one folder a class")


def test_splits_in_the_place_of_classes_are_refused(tmp_path: Path) -> None:
    pets(tmp_path / "train")
    pets(tmp_path / "val")
    expected = f"name {tmp_path}/train in data.train and {tmp_path}/val in data.val"
    assert refusal(tmp_path) == f"{tmp_path}: holds train, val instead of classes; {expected}"


def test_a_lone_split_is_refused(tmp_path: Path) -> None:
    pets(tmp_path / "Training")
    assert f"name {tmp_path}/Training in data.train" in refusal(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert names_of(opened(write(tmp_path, "train/1.png", "test/1.png"))) == ["test", "train"]


def test_one_class_is_refused(tmp_path: Path) -> None:
    assert "a classifier needs two classes" in refusal(write(tmp_path, "cat/1.png"))


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    write(pets(tmp_path), "cow/readme.txt")
    assert refusal(tmp_path).startswith(f"{tmp_path}/cow: no image in this folder of a class")


def test_a_name_with_control_characters_is_refused(tmp_path: Path) -> None:
    assert "'a\\x1bb' cannot name a class" in refusal(write(pets(tmp_path), "a\x1bb/1.png"))


@pytest.mark.parametrize(("name", "words"), [("pets.tar.gz", "unpack it first"), ("pets.csv", "name the folder that")])
def test_a_file_is_refused(tmp_path: Path, name: str, words: str) -> None:
    write(tmp_path, name)
    assert words in refusal(tmp_path / name)


def test_a_root_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not found"):
        open_labelled(config(tmp_path / "none"), "train")


@pytest.mark.parametrize("entry", ["{format: coco, images: a, annotations: b}", "{format: voc, root: a, split: b}"])
def test_boxes_are_refused_with_the_way_out(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"write \{format: crops, of: \{format: (coco|voc), \.\.\.\}\}"):
        open_labelled(tiny_config(f"data.train=[{entry}]"), "train")


def test_a_split_without_sets_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.train: lists no data set"):
        open_labelled(Config(), "train")


def test_training_images_of_one_class_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="all 3 images are of the class 'dog'"):
        open_labelled(config(pets(tmp_path), more="holdout: 0, classes: [dog, cow]"), "train")


# Joined


def test_joined_folders_have_ids_of_their_own(tmp_path: Path) -> None:
    settings = config(pets(tmp_path / "a", 1), pets(tmp_path / "b", 1), more="holdout: 0")
    ids = open_labelled(settings, "train").annotations.image_ids
    assert list(ids) == [f"{number}/{kind}/0.png" for number in (1, 2) for kind in ("cat", "dog")]


def test_a_folder_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    root = pets(tmp_path / "a", 1)
    with pytest.raises(DatasetError, match="is listed twice"):
        open_labelled(config(root, root / ".." / "a", more="holdout: 0"), "train")


def test_a_link_between_classes_is_refused(tmp_path: Path) -> None:
    root = pets(tmp_path)
    (root / "cat" / "more").symlink_to(root / "dog")
    with pytest.raises(DatasetError, match="links lead here from the classes 'cat' and 'dog'"):
        open_labelled(config(root), "train")


def test_joined_folders_have_the_classes_of_the_first(tmp_path: Path) -> None:
    write(pets(tmp_path / "b", 1), "bird/1.png")
    dataset = open_labelled(config(pets(tmp_path / "a", 1), tmp_path / "b", more="holdout: 0"), "train")
    assert names_of(dataset) == ["cat", "dog", "cat", "dog"]
    check_dataset(dataset)


# Held out


def ids(dataset: DetectionDataset) -> set[object]:
    return set(dataset.annotations.image_ids)


def test_without_data_val_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    settings = config(pets(tmp_path, 10), more="holdout: 0.3")
    train, val = open_labelled(settings, "train"), open_labelled(settings, "val")
    assert np.bincount(val.annotations.labels).tolist() == [3, 3]
    assert ids(train) | ids(val) == ids(opened(tmp_path))
    assert not ids(train) & ids(val)
    check_dataset(val)


def test_the_log_says_what_is_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detector")
    open_labelled(config(pets(tmp_path, 10), more="holdout: 0.3"), "val")
    assert "data.val lists nothing: val has 6 of the 20 images of data.train (data.holdout 0.3)" in caplog.text


def test_with_data_val_nothing_is_held_out(tmp_path: Path) -> None:
    val = f"val: [{{format: folder, root: {write(tmp_path / 'val', 'dog/1.png')}}}]"
    settings = config(pets(tmp_path / "train", 10), more=val)
    train = open_labelled(settings, "train")
    assert len(train) == 20
    assert names_of(open_labelled(settings, "val", train.annotations.class_names)) == ["dog"]


def test_a_run_that_never_evaluates_trains_on_everything(tmp_path: Path) -> None:
    path = pets(tmp_path, 10)
    text = f"{{data: {{train: [{{format: folder, root: {path}}}], holdout: 0.3}}, training: {{evaluate_every: 0}}}}"
    settings = parse_config(text, "test.yaml")
    train, val = open_labelled_for_training(settings, tmp_path)
    assert (len(train), val) == (20, None)
    assert len(open_labelled(settings, "train")) == 20
    with pytest.raises(ConfigError, match=r"training\.evaluate_every 0 nothing is held out"):
        open_labelled(settings, "val")


def test_nothing_to_evaluate_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.val: lists no data set, and with data\.holdout or .* 0"):
        open_labelled(config(pets(tmp_path), more="holdout: 0"), "val")


def test_a_share_that_leaves_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.holdout: 0\.1 of 6 images leaves none to evaluate on"):
        open_labelled(config(pets(tmp_path), more="holdout: 0.1"), "val")


def test_another_seed_holds_out_others() -> None:
    whole = open_drawn(ShapesSet(format="shapes", images=60), None, {})
    assert (without_held_out(whole, 0.5, 0) != without_held_out(whole, 0.5, 1)).any()


def test_who_is_held_out_does_not_depend_on_new_folders(tmp_path: Path) -> None:
    settings = config(pets(tmp_path, 10))
    before = ids(open_labelled(settings, "val"))
    write(tmp_path, *(f"bird/{number}.png" for number in range(10)))
    assert before < ids(open_labelled(settings, "val"))


@given(images=st.integers(12, 60), share=st.floats(0.01, 1), seed=st.integers(0, 5))
def test_each_class_keeps_an_image_and_gives_its_share(images: int, share: float, seed: int) -> None:
    whole = open_drawn(ShapesSet(format="shapes", images=images), None, {})
    labels = whole.annotations.labels
    total, kept = np.bincount(labels), np.bincount(labels[without_held_out(whole, share, seed)], minlength=6)
    assert (kept >= 1).all()
    assert (abs(np.minimum(total * share, total - 1) - (total - kept)) <= 0.5 + 1e-9).all()
