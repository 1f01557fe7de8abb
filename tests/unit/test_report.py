"""The report: one file that asks nobody for anything, whatever there is to report."""

from __future__ import annotations

import base64
import configparser
import copy
import fnmatch
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from detector.engine.stages import STAGES
from detector.errors import MachineError
from detector.evaluation.report import bars, content, numbers, overview
from detector.evaluation.report.page import Picture, write_report
from detector.evaluation.report.pictures import fit
from tests.report_inputs import NASTY, PROVENANCE, Evaluation, Parsed, evaluate, picture

LIMIT = 5_000_000
PLAIN = ("platelet", "red cell", "white cell")
STAGE_COUNTS = {"images": 40, "objects": 500, "missed": 9, "lost": dict.fromkeys(STAGES, 1), "proposal_recall": {}}


def render(
    metrics: dict[str, Any],
    analysis: dict[str, Any],
    provenance: dict[str, str] = PROVENANCE,
    pictures: tuple[Picture, ...] = (),
) -> str:
    write_report(Path("report.html"), metrics, analysis, provenance, pictures)
    return Path("report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain() -> Evaluation:
    return evaluate(PLAIN)


def assert_asks_for_nothing(page: str) -> None:
    parsed = Parsed(page)
    assert not parsed.open
    assert not re.search(
        r"https?:|//\w|@import|xlink|\bimport\b|fetch\(|XMLHttp", re.sub(r'src="data:[^"]*"', "", page)
    )
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    for attribute in ("src", "href", "action", "data", "poster", "srcset"):
        assert all(re.match(r"data:|#", value) for value in parsed.values(attribute)), attribute


@pytest.mark.parametrize("names", [("cell",), PLAIN, NASTY, tuple(f"class {i}" for i in range(80))], ids=len)
@pytest.mark.parametrize(("images", "share"), [(0, 1.0), (2, 0.0), (12, 0.0), (12, 0.8), (60, 1.0)])
def test_every_page_is_one_small_file_that_asks_for_nothing(names: tuple[str, ...], images: int, share: float) -> None:
    page = render(*evaluate(names, images, share))
    assert [path.name for path in Path.cwd().iterdir()] == ["report.html"]
    assert len(page.encode()) < LIMIT
    assert_asks_for_nothing(page)
    assert not re.search(r"\b(nan|inf|none)\b", Parsed(page).text, re.IGNORECASE)


def test_the_sections_stand_in_the_order_of_their_list(plain: Evaluation) -> None:
    parsed = Parsed(render(plain[0], plain[1] | {"warnings": ["is this split annotated?"]}))
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    wanted = ["numbers", "warnings", "classes", "curves", "errors", "stages", "confusion", "calibration", "slices"]
    wanted += ["images", "data", "origin"]
    assert [section["id"] for section in parsed.all("section")] == wanted
    assert [link["href"] for link in parsed.all("a")[1:]] == [f"#{name}" for name in wanted]


def test_no_warnings_no_section(plain: Evaluation) -> None:
    assert 'id="warnings"' not in render(*plain)


def test_foreign_text_stays_text() -> None:
    metrics, analysis = evaluate(NASTY)
    analysis = analysis | {"warnings": list(NASTY)}
    analysis["worst_images"] = [{"index": 0, "image_id": NASTY[1], "errors": {"missed": 1}, "classes": list(NASTY)}]
    for pictures in ((), (picture(NASTY[0], {"missed": 1, "both": 2}, NASTY),)):
        page = render(metrics, analysis, {name[:40]: name for name in NASTY} | {"Long": f"{NASTY[0]}\n"}, pictures)
        parsed = Parsed(page)
        assert len(parsed.all("script")) == len(parsed.all("style")) == 1
        assert not parsed.all("b")
        assert not parsed.values("onerror")
        assert len(parsed.all("img")) == len(pictures)
        assert NASTY[0] in parsed.text
        assert "{{ 7 * 7 }} {% raw %}" in parsed.text


def test_long_names_are_cut_wherever_they_stand() -> None:
    metrics, analysis = evaluate(["x" * 5000, "y" * 5000])
    page = render(metrics, analysis, {}, (picture("z" * 5000, classes=["x" * 5000]),))
    assert max(len(run) for run in re.findall(r"x+|y+|z+", page.split("<body>")[1])) < 100


def test_only_the_page_s_own_script_may_run(plain: Evaluation) -> None:
    page = render(*plain)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    own = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(meta["content"] for meta in Parsed(page).all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{own}'" in policy


@pytest.mark.parametrize("part", ["intervals", "error_kinds", "operating_points", "curves", "confusion", "calibration",
                                  "slices", "data", "worst_images"])  # fmt: skip
@pytest.mark.parametrize("value", ["absent", None])
def test_a_part_that_is_missing_leaves_the_others(plain: Evaluation, part: str, value: str | None) -> None:
    analysis = copy.deepcopy(plain[1])
    del analysis[part]
    if value is None:
        analysis[part] = None
    parsed = Parsed(render(plain[0], analysis))
    assert len(parsed.all("section")) == 11
    assert all(name in parsed.text for name in PLAIN)


@pytest.mark.parametrize("group", ["coco", "voc07", "voc"])
def test_one_protocol_is_enough(plain: Evaluation, group: str) -> None:
    metrics, analysis = copy.deepcopy(plain)
    mine = {"coco": ("AP", "AP50", "AP75"), "voc07": ("voc07_AP50",), "voc": ("voc_AP50",)}[group]
    metrics["per_class"] = {
        name: {"objects": row["objects"]} | {key: row[key] for key in mine}
        for name, row in metrics["per_class"].items()
    }
    for other in {"coco", "voc07", "voc"} - {group}:
        del metrics[other]
    groups = overview.headline(metrics, analysis)
    assert len(groups) == 1
    assert groups[0].large[0].text == numbers.percent(next(iter(metrics[group].values())))
    assert_asks_for_nothing(render(metrics, analysis))


def test_nothing_at_all_is_a_page() -> None:
    parsed = Parsed(render({}, {}, {}))
    assert "No metric was computed." in parsed.text
    assert "There are no classes." in parsed.text
    assert "evaluate.py WEIGHTS" in parsed.text


def test_stages_appear_where_the_network_was_there(plain: Evaluation) -> None:
    stages = STAGE_COUNTS | {"proposal_recall": {"100": 0.91, "300": 0.95, "1000": 0.97}}
    text = Parsed(render(plain[0], plain[1] | {"stages": stages})).text
    assert "In 40 images, 9 of 500 objects were missed." in text
    assert "evaluate.py WEIGHTS" not in text
    for number in ("100 91.0", "300 95.0", "1,000 97.0"):
        assert number in text


def test_every_kind_and_stage_is_explained(plain: Evaluation) -> None:
    assert all(row.note for row in bars.error_bars(plain[1]))
    assert all(row.note for row in bars.stage_bars(STAGE_COUNTS))
    assert all(what for _, what, _ in bars.slice_tables(plain[1]))


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -1, -1.0])
def test_an_undefined_number_is_a_dash(plain: Evaluation, value: float | None) -> None:
    metrics, analysis = copy.deepcopy(plain)
    metrics["coco"] = dict.fromkeys(metrics["coco"], value)
    metrics["per_class"][PLAIN[0]] = {"objects": 0} | dict.fromkeys(list(metrics["per_class"][PLAIN[0]])[1:], value)
    analysis["slices"]["side"][0]["recall"] = value
    parsed = Parsed(render(metrics, analysis))
    assert not re.search(r"nan|inf\b|None|[-−]100\.0|[-−]1\b", parsed.text)
    assert "AP – mean over IoU" in parsed.text
    row = overview.class_table(metrics, analysis).rows[0][1]
    assert [(cell.text, cell.value) for cell in row[1:4]] == [("–", None)] * 3


def test_numbers_as_people_read_them() -> None:
    assert numbers.percent(0.5224) == "52.2"
    assert [numbers.signed(value) for value in (0.064, -0.001, 0.0001, -0.0001)] == ["+6.4", "−0.1", "0.0", "0.0"]
    assert numbers.count(1749) == "1,749"
    assert numbers.several(1, "image", "images") == "1 image"
    assert numbers.shorten("a\n b " + "c" * 90, 10) == "a b ccccc…"


def test_an_interval_stays_among_the_fractions() -> None:
    span = numbers.span([-0.02, 0.1], 0.05)
    assert span is not None
    assert (span.text, span.low, span.high) == ("0.0–10.0", 0.0, 10.0)
    assert numbers.span(None, 0.5) is numbers.span([0.1, float("nan")], 0.5) is numbers.span([0.1, 0.2], None) is None


def test_the_12_most_frequent_classes_have_curves() -> None:
    curve = {"score": [0.5], "precision": [1.0], "recall": [0.1], "f1": [0.2]}
    analysis = {"curves": {f"class {number}": {"objects": number, **curve} for number in range(20)}}
    drawn = content.curves(analysis)
    assert drawn is not None
    assert [line.name for line in drawn.legend] == [f"class {number}" for number in range(19, 7, -1)]
    assert len({(line.colour, line.dashed) for line in drawn.legend}) == 12
    assert "The 12 most frequent of 19 classes are drawn" in Parsed(render({}, analysis)).text  # class 0 has no objects


def test_charts_take_the_colours_of_the_page(plain: Evaluation) -> None:
    charts = re.findall(r"<svg class=\"chart\".*?</svg>", render(*plain), re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        assert not re.search(r"#[0-9a-f]{6}", chart)
        assert "var(--ink)" in chart
        assert "font-family" not in chart
    assert "var(--series-3)" in charts[0]


def test_the_matrix_tells_shares_of_rows() -> None:
    rows = content.confusion_rows({"score": 0.5, "names": ["a", "b", "background"],
                                   "table": [[3, 1, 0], [0, 0, 2], [1, 0, 0]]})  # fmt: skip
    assert [square.share for _, squares in rows for square in squares] == [0.75, 0.25, 0, 0, 0, 1, 1, 0, 0]
    assert [square.sentence for square in rows[0][1]] == [
        "a found: 3 of 4, 75 %", "a taken for b: 1 of 4, 25 %", "a not found: 0 of 4, 0 %",
    ]  # fmt: skip
    assert rows[2][1][0].sentence == "false detections of a where nothing is: 1 of 1, 100 %"
    assert rows[2][1][2].text == ""


def test_the_costliest_kind_comes_first() -> None:
    kinds = {
        "counts": {"class": 9, "location": 2, "missed": 1},
        "cost": {"class": 0.01, "location": 0.2, "missed": 0.0},
    }
    rows = bars.error_bars({"error_kinds": kinds})
    assert [(row.name, row.text, row.length) for row in rows] == [
        ("location", "+20.0", 100.0), ("class", "+1.0", 5.0), ("missed", "0.0", 0.0),
    ]  # fmt: skip


def test_long_texts_are_folded_and_short_ones_are_not(plain: Evaluation) -> None:
    parsed = Parsed(render(*plain))
    assert len(parsed.all("details")) == 2
    assert "Iteration 1,400" in parsed.text
    assert "Configuration seed: 0 device: auto" in parsed.text


def test_pictures_that_fit_are_as_they_were(plain: Evaluation) -> None:
    pictures = tuple(picture(f"image {number}", classes=PLAIN) for number in range(3))
    page = render(*plain, pictures=pictures)
    sources = [image["src"] for image in Parsed(page).all("img")]
    assert sources == [one.data_uri() for one in pictures]
    assert "left out" not in page


@pytest.mark.slow
def test_many_large_pictures_shrink_and_the_last_ones_go(plain: Evaluation) -> None:
    large = picture("large", size=(1300, 500), noise=True)
    pictures = tuple(Picture(f"image {number}", large.errors, (), large.jpeg) for number in range(100))
    page = render(*plain, pictures=pictures)
    assert 0.9 * LIMIT < len(page.encode()) < LIMIT
    parsed = Parsed(page)
    shown = [image["alt"] for image in parsed.all("img")]
    assert 20 < len(shown) < 100
    assert shown == [f"image {number}, ground truth beside detections" for number in range(len(shown))]
    assert f"{100 - len(shown)} more were left out to keep this page small." in parsed.text


def test_pictures_shrink_before_any_goes() -> None:
    large = picture("large", size=(1300, 500), noise=True)
    shown = fit([large] * 4, len(large.jpeg) * 3)
    assert len(shown) == 4
    assert all(one.size()[0] < 1300 for one in shown)
    assert fit([large], 10) == []


def test_the_files_of_the_page_are_installed(root: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    patterns = setup["options.package_data"]["detector.evaluation.report"].split(", ")
    files = [path.name for path in (root / "detector/evaluation/report").iterdir() if path.is_file()]
    others = [name for name in files if not name.endswith(".py")]
    assert len(others) == 6
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in others)


def test_a_page_that_is_there_is_replaced_and_a_missing_folder_told(plain: Evaluation) -> None:
    Path("report.html").write_text("old")
    assert "old" not in render(*plain)[:10]
    with pytest.raises(MachineError, match="nowhere/report.html: the page cannot be written"):
        write_report(Path("nowhere/report.html"), *plain, PROVENANCE, [])


def test_the_same_evaluation_is_the_same_page(plain: Evaluation) -> None:
    assert render(*plain) == render(*plain)
