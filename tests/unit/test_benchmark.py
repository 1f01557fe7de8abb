"""The parts of the benchmark whose results a reader can check by hand: clocks, turns, operations, medians, curves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.profiler import record_function

from detector.engine.benchmark.flops import count_flops
from detector.engine.benchmark.machine import Peak, describe_machine, measure_peak, seconds
from detector.engine.benchmark.memory import measure_memory
from detector.engine.benchmark.scaling import AXES, Curve, Point, draw_curve, format_curve
from detector.engine.benchmark.stopwatch import Cost, labels_read
from detector.engine.benchmark.timing import Summary, alternate
from detector.engine.benchmark.variants import Variant, make_run, reading_run, variants
from detector.engine.benchmark.workload import (
    Work,
    class_count,
    file_size,
    make_batch,
    make_images,
    make_model,
    proposals_made,
)
from detector.structures import Size
from tests.tiny import tiny_config
from tests.unit.test_plots import assert_is_an_image

CPU = torch.device("cpu")


def tiny_work(*overrides: str, batch: int = 1, objects: int = 3) -> Work:
    return Work(tiny_config(*overrides), None, 6, Size(64, 96), batch, objects)


class Ticks:
    """A clock on which every reading is a second after the last."""

    def __init__(self) -> None:
        self.reading = 0.0

    def __call__(self) -> Cost:
        self.reading += 1
        return Cost(self.reading, 2 * self.reading)


# Clocks


def test_a_label_takes_what_the_labels_inside_it_leave() -> None:
    with labels_read(Ticks()) as parts:
        with record_function("outer"):  # reads 1, and 4 at its end
            with record_function("inner"):  # reads 2 and 3
                pass
    assert parts == {"inner": Cost(1, 2), "outer": Cost(2, 4)}


def test_a_label_that_comes_twice_adds_up() -> None:
    with labels_read(Ticks()) as parts:
        for _ in range(2):
            with record_function("part"):
                pass
    assert parts == {"part": Cost(2, 4)}


def test_backward_and_optimiser_are_labelled() -> None:
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with labels_read(Ticks()) as parts:
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert parts == {"backward": Cost(1, 2), "optimiser": Cost(2, 4)}


def test_the_labels_of_torch_are_put_back() -> None:
    before = record_function.__enter__, record_function.__exit__, torch.Tensor.backward
    with pytest.raises(ZeroDivisionError), labels_read(Ticks()):
        raise ZeroDivisionError
    assert before == (record_function.__enter__, record_function.__exit__, torch.Tensor.backward)


def test_the_parts_of_a_detection_add_up_to_all_of_it() -> None:
    work = tiny_work()
    run = make_run(make_model(work, CPU), work, Variant("inference", "fast", "fp32"), CPU)
    reading = alternate({"run": run}, 1, CPU)["run"][0]
    assert {"backbone", "rpn", "proposals", "pooling", "head", "post-processing", "rest"} == set(reading.parts)
    assert sum(cost.wall for cost in reading.parts.values()) == pytest.approx(reading.whole.wall)
    assert sum(cost.cpu for cost in reading.parts.values()) == pytest.approx(reading.whole.cpu)


def test_the_parts_of_a_training_step_are_named() -> None:
    work = tiny_work()
    run = make_run(make_model(work, CPU), work, Variant("training", "fast", "fp32"), CPU)
    parts = alternate({"run": run}, 1, CPU)["run"][0].parts
    assert {"backbone", "rpn", "proposals", "pooling", "head", "backward", "optimiser", "rest"} == set(parts)


# Turns and what they come to


def test_runs_take_turns_and_each_begins_once() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    readings = alternate(runs, 3, CPU)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"  # the first three are not counted
    assert [len(each) for each in readings.values()] == [3, 3, 3]


def test_a_summary_is_median_quartiles_and_extremes() -> None:
    assert Summary.of([5, 1, 2, 4, 3]) == Summary(3, 2, 4, 1, 5)
    assert Summary.of([7]) == Summary(7, 7, 7, 7, 7)


def test_cpu_time_is_spread_over_the_threads() -> None:
    assert seconds(Cost(wall=9.0, cpu=4.0), CPU) == 4.0 / torch.get_num_threads()
    assert seconds(Cost(wall=9.0, cpu=4.0), torch.device("cuda")) == 9.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_peak_is_that_of_a_kernel(precision: str) -> None:
    peak = measure_peak(precision, CPU, rounds=1)
    assert isinstance(peak, Peak)
    assert min(peak.wall, peak.cpu) > 0
    assert describe_machine(CPU)["threads"] == torch.get_num_threads()


# Work


def test_operations_of_a_convolution_are_counted_under_their_label() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    other = nn.Linear(7, 11)

    def run() -> None:
        with record_function("part"):
            conv(torch.ones(1, 3, 4, 6))
        other(torch.ones(2, 7))

    first = 2 * (4 * 6) * 5 * (3 * 3 * 3)  # two for each weight and output
    second = 2 * 2 * 7 * 11
    assert count_flops(run) == {"part": first, "rest": second, "total": first + second}


def test_both_ways_do_the_same_work_but_for_the_head() -> None:
    work = tiny_work("model.backbone.depth=50")
    model = make_model(work, CPU)
    fast, plain = (
        count_flops(make_run(model, work, Variant("inference", way, "fp32"), CPU)) for way in ("fast", "plain")
    )
    assert fast["backbone"] == plain["backbone"]
    assert fast["rpn"] == plain["rpn"]
    assert fast["head"] != plain["head"]


def test_a_backward_pass_is_counted() -> None:
    weight = torch.ones(3, 3, requires_grad=True)
    counts = count_flops(lambda: (torch.ones(2, 3) @ weight).sum().backward())
    assert counts == {"backward": 36, "rest": 36, "total": 72}  # the input has no gradient


def test_work_survives_the_way_to_another_process() -> None:
    work = tiny_work("model.rpn.nms_iou=0.6").with_proposals(7)
    assert Work.parse(json.loads(json.dumps(work.json()))) == work


def test_the_number_of_proposals_is_the_one_asked_for() -> None:
    work = tiny_work(batch=2).with_proposals(5)
    assert proposals_made(make_model(work, CPU), make_images(work)) == 5
    assert work.config.model.roi_head.regions_per_image == 5


def test_more_proposals_need_more_candidates() -> None:
    assert tiny_work().with_proposals(40).config.model.rpn.test_candidates == 80
    assert tiny_work().with_proposals(20).config.model.rpn.test_candidates == 60


def test_the_same_work_is_the_same_network_and_image() -> None:
    one, other = make_model(tiny_work(), CPU), make_model(tiny_work(), CPU)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert torch.equal(make_images(tiny_work()).pixels, make_images(tiny_work()).pixels)


def test_random_weights_give_nms_something_to_do() -> None:
    work = tiny_work()
    model = make_model(work, CPU)
    found = make_run(model, work, Variant("inference", "fast", "fp32"), CPU)()
    assert len(found[0]) == 20  # detections_per_image
    assert len(set(found[0].labels.tolist())) > 1


def test_a_batch_has_its_images_and_objects() -> None:
    batch = make_batch(tiny_work(batch=3, objects=4))
    assert batch.images.pixels.shape == (3, 3, 64, 96)
    for target in batch.targets:
        assert target.boxes.shape == (4, 4)
        assert bool((target.boxes[:, 2:] > target.boxes[:, :2]).all())
        assert bool((target.boxes >= 0).all() and (target.boxes <= torch.tensor([96, 64, 96, 64])).all())
        assert int(target.labels.max()) < 6


def test_a_training_step_leaves_the_weights() -> None:
    work = tiny_work()
    model = make_model(work, CPU)
    step = make_run(model, work, Variant("training", "fast", "fp32"), CPU)
    first, second = step(), step()
    assert first.made
    assert first.losses == pytest.approx(second.losses)


def test_the_number_of_classes_is_known_without_the_data() -> None:
    assert class_count(tiny_config()) == 6
    assert class_count(tiny_config("data.classes=[circle, square]")) == 2
    assert class_count(tiny_config("data.train=[{format: coco, images: none, annotations: none}]")) == 80
    assert class_count(tiny_config("data.train=[{format: voc, root: none, split: none}]")) == 20


def test_the_image_file_is_read_by_parts() -> None:
    work = tiny_work()
    assert file_size(work) == Size(38, 58)
    with reading_run(work) as read:
        assert set(alternate({"reading": read}, 1, CPU)["reading"][0].parts) == {"decode", "resize", "rest"}


def test_variants_begin_with_the_fast_way() -> None:
    names = [variant.name for variant in variants(["inference"], ["fp32", "bf16"], ["plain", "plain"])]
    assert names == [f"inference, {precision}, {way}" for precision in ("fp32", "bf16") for way in ("fast", "plain")]


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own() -> None:
    work = tiny_work()
    memory = measure_memory(work, Variant("inference", "fast", "fp32"), CPU, lambda: None)
    assert 0 < memory.before < 2**34
    assert 0 < memory.peak < 2**34


# Curves


def curve(exponents: dict[str, float], *values: float) -> Curve:
    """Parts that grow as powers; the total takes a second at 1 for each."""
    points = []
    for value in values:
        times = {part: value**exponent for part, exponent in exponents.items()}
        times = {"total": sum(times.values()), **times}
        points.append(Point(value, {part: Summary.of([time]) for part, time in times.items()}))
    return Curve("proposals", AXES["proposals"], "a network", Variant("inference", "fast", "fp32"), "time", points)


def test_the_exponent_of_a_power_law() -> None:
    steep = curve({"head": 2.0, "rpn": 0.0}, 1, 10, 100)
    assert steep.exponent("head") == pytest.approx(2)
    assert steep.exponent("rpn") == pytest.approx(0)
    assert steep.last_exponent("head") == pytest.approx(2)
    assert steep.last_exponent() == pytest.approx(math.log10(10001 / 101))


def test_what_grows_faster_than_it_should_is_named() -> None:
    assert curve({"head": 2.0, "rpn": 0.0}, 10, 100).too_steep() == [
        "total from 10 to 100 (exponent 2.00)",
        "head from 10 to 100 (exponent 2.00)",
    ]
    assert curve({"head": 1.1, "rpn": 0.0}, 1, 10).too_steep() == []
    assert "too steep: head from 1 to 10 (exponent 2.00)" in format_curve(curve({"head": 2.0}, 1, 10))
    assert "nothing is too steep" in format_curve(curve({"head": 1.0}, 1, 10))


def test_a_spread_that_explains_the_growth_is_no_growth() -> None:
    certain = curve({"head": 2.0}, 1, 10)
    wide = {part: Summary(time.median, 1.0, 2000.0, 1.0, 2000.0) for part, time in certain.points[1].times.items()}
    assert replace(certain, points=[certain.points[0], Point(10, wide)]).too_steep() == []


def test_a_sliver_of_the_time_is_not_worth_a_word() -> None:
    grown = curve({"head": 1.0, "pooling": 2.0}, 0.001, 0.01)
    assert grown.last_exponent("pooling") == pytest.approx(2)
    assert grown.too_steep() == []


@pytest.mark.parametrize("values", [(100, 200, 500, 1000, 2000), (1, 1000)])
def test_a_curve_is_drawn(tmp_path: Path, values: tuple[float, ...]) -> None:
    draw_curve(curve({"head": 1.0, "rpn": 0.1, "zero": -9.0}, *values), tmp_path / "curve.png")
    assert_is_an_image(tmp_path / "curve.png")
