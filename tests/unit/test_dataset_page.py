"""The doctor's page: one file that asks nobody for anything, whatever was found."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.config.data_schema import ResizeConfig
from detector.config.schema import AnchorConfig, Config
from detector.data.doctor.anchor_fit import measure_fit, objects_of
from detector.data.doctor.anchor_search import Suggestion
from detector.data.findings import KINDS, Finding
from detector.data.images import read_image
from detector.data.raw.recognise import read_raw, recognise
from detector.data.raw.structure import RawSet
from detector.data.voc import open_voc
from detector.engine.dataset_page import DatasetPage, content, gallery, write_dataset_page
from detector.engine.dataset_page.gallery import Gallery, draw_boxes
from detector.engine.self_test import SelfTest, self_test
from detector.errors import ImageError, MachineError
from tests.report_inputs import NASTY, Parsed

LIMIT = 5_000_000
RESIZE, ANCHORS = ResizeConfig(), AnchorConfig()
FAULTY, OTHER, GRAY = (255, 20, 100), (255, 214, 60), (128, 128, 128)
PASSED = SelfTest({"coco.AP": 1.0}, {"coco.AP": 1.0}, 1.0, 12, 0, None)


def raw_set(
    boxes: Sequence[Sequence[float]],
    split: str = "train",
    names: Sequence[str] = ("ant", "bee"),
    images: int = 3,
    files: Sequence[str] | None = None,
) -> RawSet:
    """Boxes (x, y, w, h) that fall to images in turn, classes likewise; image files are called 0.png, 1.png .."""
    count = len(boxes)
    ids = tuple(range(images))
    return RawSet(
        "coco", split, Path("set") / f"{split}.json", Path("set") / "images", ids,
        tuple(files or (f"{index}.png" for index in ids)), (f"set/{split}.json",) * images, ("",) * images,
        np.full((images, 2), 100), tuple(range(len(names))), tuple(names), np.arange(count) % max(images, 1),
        np.arange(count) % max(len(names), 1), np.array(boxes, dtype=float).reshape(-1, 4), np.full(count, np.nan),
        np.zeros(count, dtype=bool), np.zeros(count, dtype=bool), np.arange(count),
        tuple(f"annotations[{row}]" for row in range(count)), (),
    )  # fmt: skip


BOXES = [[10, 10, 30, 20], [40, 50, 20, 40], [5, 5, 90, 90], [60, 10, 12, 12], [0, 0, 0, 9], [90, 90, 40, 5]]


def page_of(
    *sets: RawSet, findings: Sequence[Finding] = (), pairs: dict[Finding, tuple[str, str]] | None = None
) -> DatasetPage:
    return DatasetPage(
        "my set", sets, [np.full((len(raw), 2), 100) for raw in sets], findings, pairs or {}, RESIZE, ANCHORS
    )


def noise(path: str) -> np.ndarray:
    """An image that compresses badly, the same for all paths."""
    return np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)


def render(page: DatasetPage, read: gallery.Read = noise) -> str:
    write_dataset_page(Path("page.html"), page, read)
    return Path("page.html").read_text(encoding="utf-8")


def everything(names: Sequence[str] = ("ant", "bee")) -> DatasetPage:
    """A page that has all there can be."""
    train, val = raw_set(BOXES, names=names), raw_set(BOXES[:2], "val", names)
    findings = [train.about_object(kind, number % 6, f"{names[0]} is wrong") for number, kind in enumerate(KINDS)]
    pair = train.about_image("image-nearly-in-two-splits", 1, "nearly the same as another")
    objects = objects_of(train, np.full((3, 2), 100))
    fit = measure_fit(objects, names, RESIZE, ANCHORS)
    page = page_of(train, val, findings=[*findings, pair], pairs={pair: ("set/images/1.png", "set/images/2.png")})
    suggestion = Suggestion((16.0, 48.0), (0.5, 1.0), 1280, (1024, 1280), 2133, True, 2.6, fit)
    return replace(page, fit=fit, suggestion=suggestion, self_test=PASSED)


def assert_asks_for_nothing(page: str) -> None:
    parsed = Parsed(page)
    assert not parsed.open
    assert not re.search(
        r"https?:|//\w|@import|xlink|\bimport\b|fetch\(|XMLHttp", re.sub(r'src="data:[^"]*"', "", page)
    )
    for attribute in ("src", "href", "action", "data", "poster", "srcset"):
        assert all(re.match(r"data:|#", value) for value in parsed.values(attribute)), attribute
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "page",
    [page_of(), page_of(raw_set([])), page_of(raw_set([], images=0, names=())), page_of(raw_set(BOXES)), everything()],
    ids=["nothing", "no objects", "no images", "no findings", "everything"],
)
def test_every_page_is_one_small_file_that_asks_for_nothing(page: DatasetPage) -> None:
    text = render(page)
    assert [path.name for path in Path.cwd().iterdir()] == ["page.html"]
    assert len(text.encode()) < LIMIT
    assert_asks_for_nothing(text)
    assert not re.search(r"\b(nan|inf|None)\b", Parsed(text).text)


def test_the_policy_allows_the_pages_own_script_alone() -> None:
    text = render(page_of())
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


def test_foreign_text_stays_text() -> None:
    names = (*NASTY, "\ud800 half", "\x1b[2J", "\u202eback")
    page = everything(names)
    sets = [
        replace(raw, file_names=tuple(name[:80] for name in names[at : at + 3])) for at, raw in enumerate(page.sets)
    ]
    findings = [sets[0].about_object("box-tiny", row % 6, name) for row, name in enumerate(names)]
    text = render(replace(page, title="".join(names), sets=sets, findings=findings))
    assert_asks_for_nothing(text)
    parsed = Parsed(text)
    assert parsed.all("b") == []
    assert len(parsed.all("script")) == 1
    assert all("onerror" not in image for image in parsed.all("img"))
    assert not {"\x1b", "\u202e"} & set(text)


def test_findings_stand_by_kind_the_most_severe_first() -> None:
    raw = raw_set(BOXES)
    kinds = ("crowd", "box-tiny", "box-without-area", "box-tiny")
    groups = content.finding_groups([raw.about_object(kind, 0, kind) for kind in kinds], "")
    assert [(group.key, group.severity, group.number) for group in groups] == [
        ("box-without-area", "error", 1), ("box-tiny", "warning", 2), ("crowd", "note", 1),
    ]  # fmt: skip


def test_many_findings_of_a_kind_are_counted() -> None:
    raw = raw_set(BOXES)
    text = Parsed(render(page_of(raw, findings=[raw.about_object("box-tiny", 0, f"no. {n}") for n in range(23)]))).text
    assert "no. 19" in text
    assert "no. 20" not in text
    assert "3 more are not shown" in text


def test_findings_are_counted_by_severity() -> None:
    raw = raw_set(BOXES)
    findings = [raw.about_object(kind, 0, "") for kind in ("crowd", "box-tiny", "box-without-area", "box-tiny")]
    assert content.severity_counts(findings) == {"error": 1, "warning": 2, "note": 1}


def test_an_image_in_two_splits_is_counted_once() -> None:
    assert content.distinct([raw_set(BOXES), raw_set(BOXES, "trainval", images=6)]) == (6, 9)


def test_files_are_named_as_seen_from_the_data_set() -> None:
    raw = raw_set(BOXES)
    root = content.common_folder([raw])
    assert root == str(Path.cwd() / "set")
    assert content.shown_path("set/images/0.png", root) == "images/0.png"
    assert content.shown_path("/elsewhere/0.png", root) == "/elsewhere/0.png"
    assert content.shown_text(f"like {root}/images/0.png", root) == "like images/0.png"


def test_classes_have_their_numbers_in_each_split() -> None:
    train, val = raw_set(BOXES[:4]), raw_set([[0, 0, 10, 40]], "val", ("bee", "cat"))
    table = content.class_table([train, val])
    assert [column.title for column in table.columns] == [
        "Objects, train", "Images, train", "Objects, val", "Images, val", "Share", "Median side",
    ]  # fmt: skip
    rows = {name: [cell.text for cell in cells] for name, cells in table.rows}
    # ant: objects 0 (24.5 wide, image 0) and 2 (90, image 2); bee: 28.3 (image 1) and 12 (image 0), and 20 in val.
    assert rows == {
        "ant": ["2", "2", "0", "0", "40.0", "57"],
        "bee": ["2", "2", "1", "1", "60.0", "20"],
        "cat": ["0", "0", "0", "0", "0.0", "–"],
    }


def exhibits(raw: RawSet, findings: Sequence[Finding], read: gallery.Read = noise) -> list[gallery.Exhibit]:
    return Gallery([raw], {}, read, "").exhibits(findings)


def test_a_kind_has_eight_pictures_at_most() -> None:
    raw = raw_set(BOXES)
    found = exhibits(raw, [raw.about_object("box-tiny", number % 6, f"{number}") for number in range(12)])
    assert [exhibit.note[-1] for exhibit in found] == list("01234567")


def test_the_first_pictures_of_all_kinds_come_first_since_the_last_ones_may_go() -> None:
    raw = raw_set(BOXES)
    findings = [raw.about_object(kind, row, str(row)) for kind in ("box-tiny", "box-without-area") for row in range(2)]
    assert [(exhibit.kind, exhibit.note[-1]) for exhibit in exhibits(raw, findings)] == [
        ("box-without-area", "0"), ("box-tiny", "0"), ("box-without-area", "1"), ("box-tiny", "1"),
    ]  # fmt: skip


def test_the_same_finding_in_two_splits_has_one_picture() -> None:
    raw = raw_set(BOXES)
    assert len(exhibits(raw, [raw.about_object("box-tiny", 0, "small")] * 2)) == 1


def test_a_broken_image_has_no_picture() -> None:
    raw = raw_set(BOXES)

    def read(path: str) -> np.ndarray:
        if path.endswith("0.png"):
            raise ImageError(f"{path}: broken")
        return noise(path)

    found = exhibits(raw, [raw.about_image("image-rotated", image, "turned") for image in range(3)], read)
    assert [exhibit.picture.title for exhibit in found] == ["set/images/1.png", "set/images/2.png"]


def test_a_finding_about_no_image_has_no_picture() -> None:
    raw = raw_set(BOXES)
    assert exhibits(raw, [raw.about_all("class-unused", "cat")]) == []


def test_the_class_of_the_box_is_told() -> None:
    raw = raw_set(BOXES)
    assert exhibits(raw, [raw.about_object("box-tiny", 1, "small")])[0].note == "bee: small"


def test_twins_stand_side_by_side() -> None:
    raw = raw_set(BOXES)
    finding = raw.about_image("image-twice", 0, "as 1.png")
    (exhibit,) = Gallery([raw], {finding: (raw.path(0), raw.path(1))}, noise, "").exhibits([finding])
    width, height = exhibit.picture.size()
    assert width == 2 * height + 8
    assert exhibit.picture.title == "set/images/0.png | set/images/1.png"


def pixels_of(colour: tuple[int, int, int], canvas: Image.Image) -> np.ndarray:
    """Rows and columns of the pixels of a colour, as shares of the picture."""
    found = np.argwhere((np.asarray(canvas) == colour).all(axis=2))
    shares: np.ndarray = found / canvas.size[::-1]
    return shares


BLANK = np.zeros((400, 600, 3), dtype=np.uint8)


def test_the_faulty_box_stands_out_where_it_is() -> None:
    canvas = draw_boxes(BLANK, [(10, 10, 100, 100)], (300, 200, 450, 300))
    assert canvas.size == (840, 560)
    rows, columns = pixels_of(FAULTY, canvas).T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((0.5, 0.75, 0.5, 0.75), abs=0.01)
    assert len(pixels_of(OTHER, canvas))


def test_a_box_beyond_the_edge_is_shown_on_gray() -> None:
    canvas = draw_boxes(BLANK, [], (550, 100, 650, 200))
    assert len(pixels_of(GRAY, canvas))
    assert pixels_of(FAULTY, canvas)[:, 1].max() > 600 / 652


def test_a_small_box_is_shown_in_a_cut_out() -> None:
    rows, columns = pixels_of(FAULTY, draw_boxes(BLANK, [], (300, 200, 310, 210))).T
    assert rows.max() - rows.min() > 0.05
    assert 0.4 < columns.mean() < 0.6


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 5), (-1e9, -1e9, 1e9, 1e9), (599, 399, 700, 400), (1e6, 1e6, 1e6 + 5, 1e6 + 5)]
)
@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (400, 600)])
def test_any_box_can_be_drawn_on_any_image(box: gallery.Box, size: tuple[int, int]) -> None:
    canvas = draw_boxes(np.zeros((*size, 3), dtype=np.uint8), [box], box)
    assert 0 < canvas.width <= 841
    assert 0 < canvas.height <= 841


def test_boxes_without_numbers_are_not_drawn() -> None:
    raw = raw_set([[np.nan] * 4, [1, 1, 5, 5]], images=1)
    assert len(exhibits(raw, [raw.about_object("box-unreadable", 0, "no numbers")])) == 1


def test_reversed_boxes_are_drawn_between_their_corners() -> None:
    raw = raw_set([[60, 70, -20, -30]], images=1)
    boxes = Gallery([raw], {}, noise, "")._boxes(raw, 0, 0)
    assert boxes == ([], (40, 40, 60, 70))


def test_a_page_of_many_pictures_stays_small() -> None:
    raw = raw_set([[10, 10, 500, 500]] * 24, images=24)
    big = np.random.default_rng(0).integers(0, 256, (840, 840, 3), dtype=np.uint8)
    kinds = [kind for kind in KINDS if kind.startswith("box-")][:6]
    findings = [raw.about_object(kind, row, f"{row}") for kind in kinds for row in range(8)]
    text = render(page_of(raw, findings=findings), lambda path: big)
    assert len(text.encode()) < LIMIT
    parsed = Parsed(re.sub(r'src="data:[^"]*"', "", text))
    assert 0 < len(parsed.all("img")) < len(findings)
    assert f"{len(findings) - len(parsed.all('img'))} more were left out" in parsed.text


def test_a_suggestion_can_be_copied() -> None:
    page = everything()
    assert page.suggestion is not None
    text = render(page)
    assert page.suggestion.as_yaml() in text


@pytest.mark.parametrize(
    ("test", "told"),
    [
        (PASSED, "Passed: 12 objects, given as detections, score an AP of 1.0000."),
        (replace(PASSED, finding=Finding("self-test", "train", "a", "", "it fails")), "did not pass: it fails."),
        (replace(PASSED, perfect=0.93), "would score 0.9300"),
        (replace(PASSED, scores={"coco.AP": 0.5}, possible={"coco.AP": 0.5}), "COCO counts 100 detections"),
        (replace(PASSED, left_out=2), "2 objects were left out"),
        (replace(PASSED, scores={}, possible={}), "no object that could be scored"),
    ],
)
def test_the_self_test_is_told_in_a_sentence(test: SelfTest, told: str) -> None:
    assert told in content.self_test_sentence(test)


def test_a_page_that_cannot_be_written_is_one_line() -> None:
    with pytest.raises(MachineError, match=r"nowhere/page\.html: the page cannot be written"):
        write_dataset_page(Path("nowhere/page.html"), page_of(), noise)


def test_a_real_data_set_has_a_page(shared: Path) -> None:
    folder = shared / "data" / "bccd" / "BCCD"
    sets = [read_raw(source) for source in recognise(folder)]
    sets = [raw for raw in sets if raw.split in ("trainval", "test")]
    findings = [raw.about_image("image-rotated", image, "looked at") for raw in sets for image in range(3)]
    tested = self_test(open_voc(folder, "trainval", None, True, 10**8), Config(), "trainval", str(folder))
    page = DatasetPage("BCCD", sets, [raw.sizes for raw in sets], findings, {}, RESIZE, ANCHORS, None, None, tested)
    text = render(page, read_image)
    assert_asks_for_nothing(text)
    assert len(Parsed(text).all("img")) == 6
    assert "364 images, 4,888 objects of 3 classes in 2 splits" in Parsed(text).text
