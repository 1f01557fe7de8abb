"""Numbers that are not finite: told with the batch that did it, kept to be looked into, and never let into the weights.

One image of the data is of a single colour. The network is altered so that this image, and no other, gives a number
that is not finite: in the first convolution's output, or in its gradient alone.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detector import durable
from detector.cli import train
from detector.config import Config, load_config
from detector.data.build import open_split, wide_images
from detector.data.export import write_coco
from detector.data.loader import Batch, TrainingBatches
from detector.data.sampler import TrainingOrder
from detector.data.shapes import ShapesDataset
from detector.data.transforms import TrainTransform
from detector.engine.checkpoint import TrainingState, list_checkpoints, load_checkpoint, save_checkpoint
from detector.engine.distributed import Processes
from detector.engine.divergence import explain_divergence, save_diverged
from detector.engine.learner import Learner, Update
from detector.errors import TrainingError
from detector.models import resnet
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import Size
from tests.reliability.commands import Outcome, lines_of, run
from tests.reliability.runs import NARROW
from tests.tiny import TINY, tiny_config, tiny_model, write_tiny

LOSSES = FasterRCNN.losses

CPU = torch.device("cpu")
SHAPES = ShapesDataset(12, 0, Size(64, 80), hard=False)
PLAIN = 0  # the image of a single colour
ITERATIONS = 4
MAX_LINE = 400
SHOWN = 390  # what a command prints of a message
FIRST_LAYER = "backbone.conv1.conv"

_convolve = nn.Conv2d.forward


def is_plain(images: Tensor) -> Tensor:
    """``(B,)`` bool: which of ``(B, C, H, W)`` images are of a single colour."""
    return (images.amax(dim=(2, 3)) == images.amin(dim=(2, 3))).all(dim=1)


def spoil_output(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """A convolution that fails on a plain image."""
    found = _convolve(layer, images)
    if layer.in_channels == 3:
        found = torch.where(is_plain(images)[:, None, None, None], float("nan"), found)
    return found


def spoil_gradient(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """A convolution whose gradient alone fails on a plain image."""
    found = _convolve(layer, images)
    if layer.in_channels == 3 and is_plain(images).any() and found.requires_grad:
        found.register_hook(lambda gradient: gradient * float("inf"))
    return found


KEEPING_ALL = ("training.checkpoint_every=1", "training.keep_checkpoints=100")
SKIPPING = "training.on_nonfinite_loss=skip"
Spoil = Callable[[nn.Conv2d, Tensor], Tensor]


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Iterator[None]:
    """A network that computes and saves in milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_WIDTHS", NARROW)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml, which trains on coco/: twelve images, one of them of a single colour."""
    folder = tmp_path_factory.mktemp("data")
    write_coco(SHAPES, folder / "coco")
    Image.new("RGB", (80, 64), (9, 9, 9)).save(folder / f"coco/images/{PLAIN:06d}.png")
    config = write_tiny(folder)
    source = f"{{format: coco, images: {folder}/coco/images, annotations: {folder}/coco/annotations.json}}"
    old = "train:\n  - format: shapes\n    images: 12\n    seed: 0\n    size:\n    - 64\n    - 80\n"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, f"train: [{source}]\n"))
    return folder


def trained(data: Path, output: Path | str, spoil: Spoil, *overrides: str) -> Outcome:
    """A short training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", spoil)
        return run(
            train.main, data / "tiny.yaml", "device=cpu", f"training.iterations={ITERATIONS}",
            "training.checkpoint_every=0", "training.evaluate_every=0", "training.optimizer=sgd", *overrides,
            "--output", output,
        )  # fmt: skip


def meetings(data: Path) -> list[int]:
    """The iterations, counted from 1, in whose batch the plain image is."""
    config = load_config(data / "tiny.yaml")
    order = TrainingOrder(wide_images(open_split(config, "train")), 2, config.seed)
    return [
        number
        for number in range(1, ITERATIONS + 1)
        if PLAIN in (order.index(2 * number - 2), order.index(2 * number - 1))
    ]


def companions(data: Path) -> list[int]:
    """Both images of the first batch that holds the plain one."""
    config = load_config(data / "tiny.yaml")
    order = TrainingOrder(wide_images(open_split(config, "train")), 2, config.seed)
    (first, *_) = meetings(data)
    return [order.index(2 * first - 2), order.index(2 * first - 1)]


def iterations_saved(folder: Path) -> list[int]:
    return [load_checkpoint(path).iteration for path in list_checkpoints(folder / "checkpoints")]


def state_after(folder: Path, iteration: int) -> TrainingState:
    return load_checkpoint(folder / f"checkpoints/step-{iteration:09d}")


def assert_same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)


def test_the_plain_image_is_met_late_enough_to_save_something_before(data: Path) -> None:
    assert meetings(data)[0] >= 2


# A loss that is not finite


@pytest.fixture(scope="module")
def diverged(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A training that met the plain image, and its folder."""
    folder = tmp_path_factory.mktemp("diverged") / "run"
    return trained(data, folder, spoil_output, *KEEPING_ALL), folder


def kept_batch(folder: Path) -> Path:
    (path,) = folder.glob("diverged-*/rank0.pt")
    return path


def test_a_loss_that_is_not_finite_ends_the_training_with_code_4(diverged: tuple[Outcome, Path]) -> None:
    assert diverged[0].code == 4


def test_it_is_told_in_one_line(diverged: tuple[Outcome, Path]) -> None:
    (line,) = diverged[0].errors
    assert line.isprintable()
    assert len(line) <= MAX_LINE
    assert "Traceback" not in diverged[0].err


def test_the_line_has_iteration_losses_gradient_rate_and_images(data: Path, diverged: tuple[Outcome, Path]) -> None:
    (line,) = diverged[0].errors
    assert f"iteration {meetings(data)[0]}: the loss is not finite" in line
    values = [re.search(rf"{name} (\S+)[,;]", line) for name in LOSSES]
    assert [bool(value and not math.isfinite(float(value[1]))) for value in values].count(True) >= 1
    assert re.search(r"gradient norm (nan|inf); ", line)
    assert "learning rate 0.00" in line
    assert f"images {companions(data)[0]}, {companions(data)[1]}" in line


def test_the_line_says_what_to_do(diverged: tuple[Outcome, Path]) -> None:
    (line,) = diverged[0].errors
    assert f"train.py --replay {kept_batch(diverged[1])}" in line
    assert "lower training.learning_rate or set training.gradient_clip" in line


def test_nothing_is_saved_from_that_iteration_on(data: Path, diverged: tuple[Outcome, Path]) -> None:
    assert iterations_saved(diverged[1]) == list(range(1, meetings(data)[0]))
    assert not list(diverged[1].glob("*.safetensors"))


def test_the_exit_note_says_so(diverged: tuple[Outcome, Path]) -> None:
    note = json.loads((diverged[1] / "exit-0.json").read_text())
    assert note["code"] == 4
    assert diverged[0].errors[0].startswith(f"error: {note['message'][:300]}")


def test_the_weights_are_kept_as_the_batch_met_them(data: Path, diverged: tuple[Outcome, Path]) -> None:
    kept = torch.load(kept_batch(diverged[1]), weights_only=True)
    assert_same_tensors(kept["weights"], state_after(diverged[1], meetings(data)[0] - 1).model)


def test_the_batch_is_kept_as_the_network_met_it(data: Path, diverged: tuple[Outcome, Path]) -> None:
    config = load_config(data / "tiny.yaml")
    expected = batches_of(config)[meetings(data)[0] - 1]
    assert isinstance(expected, Batch)
    (part,) = torch.load(kept_batch(diverged[1]), weights_only=True)["parts"]
    torch.testing.assert_close(part["pixels"], expected.images.pixels, rtol=0, atol=0)
    for kept, target in zip(part["targets"], expected.targets, strict=True):
        torch.testing.assert_close(kept["boxes"], target.boxes, rtol=0, atol=0)
        assert kept["seed"] == target.seed


def test_a_disk_that_is_full_costs_the_batch_not_the_message(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = durable.rename

    def refuse(old: Path, new: Path) -> None:
        if new.suffix == ".pt":
            raise OSError(28, "No space left on device")
        rename(old, new)

    monkeypatch.setattr(durable, "rename", refuse)
    outcome = trained(data, "run", spoil_output)
    assert outcome.code == 4
    assert "--replay" not in outcome.errors[0]
    assert not list(Path("run").glob("diverged-*/*"))


def test_a_rate_far_too_high_is_told_like_that_too(data: Path) -> None:
    outcome = trained(data, "run", _convolve, "training.learning_rate=1e20", "training.optimizer=sgd")
    assert outcome.code == 4
    assert len(outcome.errors) == 1


def test_what_to_do_is_not_cut_off_for_long_names() -> None:
    ids = [f"2007_{number:06d}" for number in range(16)]
    update = Update(dict.fromkeys(LOSSES, -1.234e-05), -1.234e-05, made=False, diverged=True)
    place = Path("runs/faster_rcnn_r101_c4_0712/diverged-000012345/rank0.pt")
    shown = explain_divergence(123456, update, 1.23e-05, ids, place)[:SHOWN]
    for words in (ids[0], f"--replay {place}", "training.gradient_clip"):
        assert words in shown


# A gradient that is not finite


@pytest.fixture(scope="module")
def steep(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A training that met a gradient that is not finite, and its folder."""
    folder = tmp_path_factory.mktemp("steep") / "run"
    return trained(data, folder, spoil_gradient, *KEEPING_ALL), folder


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is_finite(steep: tuple[Outcome, Path]) -> None:
    assert steep[0].code == 4
    (line,) = steep[0].errors
    assert re.search(r"gradient norm (nan|inf); ", line)
    for name in LOSSES:
        value = re.search(rf"{name} (\S+)[,;]", line)
        assert value is not None
        assert math.isfinite(float(value[1]))


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(data: Path, steep: tuple[Outcome, Path]) -> None:
    kept = torch.load(kept_batch(steep[1]), weights_only=True)
    assert_same_tensors(kept["weights"], state_after(steep[1], meetings(data)[0] - 1).model)


# Left out


@pytest.fixture(scope="module")
def skipped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A training that left out the batch with the plain image, and its folder."""
    folder = tmp_path_factory.mktemp("skipped") / "run"
    return trained(data, folder, spoil_output, *KEEPING_ALL, SKIPPING, "training.ema_decay=0.9"), folder


def test_a_batch_that_is_left_out_does_not_end_the_training(skipped: tuple[Outcome, Path]) -> None:
    assert skipped[0].code == 0
    assert (skipped[1] / "model_final.safetensors").exists()


def test_what_is_left_out_is_warned_of_and_kept(data: Path, skipped: tuple[Outcome, Path]) -> None:
    told = [line for line in skipped[0].warnings if "the loss is not finite" in line]
    assert len(told) == len(meetings(data))
    assert all(line.endswith("this update is left out") for line in told)
    kept = sorted(path.parent.name for path in skipped[1].glob("diverged-*/rank0.pt"))
    assert kept == [f"diverged-{number:09d}" for number in meetings(data)]


def test_what_is_left_out_is_counted_in_the_log(data: Path, skipped: tuple[Outcome, Path]) -> None:
    counts = {record["iteration"]: record["skipped"] for record in lines_of(skipped[1] / "metrics.jsonl")}
    assert counts == {number: int(number in meetings(data)) for number in range(1, ITERATIONS + 1)}


def test_the_log_holds_finite_numbers_alone(skipped: tuple[Outcome, Path]) -> None:
    text = (skipped[1] / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text


def test_an_update_that_is_left_out_changes_nothing(data: Path, skipped: tuple[Outcome, Path]) -> None:
    number = meetings(data)[0]
    before, after = state_after(skipped[1], number - 1), state_after(skipped[1], number)
    assert_same_tensors(before.model, after.model)
    assert before.average is not None
    assert after.average is not None
    assert_same_tensors(before.average, after.average)
    old, new = before.learner["optimizer"]["state"], after.learner["optimizer"]["state"]
    for key in old:
        assert_same_tensors(old[key], new[key])


def test_the_next_update_is_made(data: Path, skipped: tuple[Outcome, Path]) -> None:
    number = next(number for number in meetings(data) if number + 1 not in meetings(data) and number < ITERATIONS)
    before, after = state_after(skipped[1], number).model, state_after(skipped[1], number + 1).model
    assert not torch.equal(before[f"{FIRST_LAYER}.weight"], after[f"{FIRST_LAYER}.weight"])


@pytest.fixture
def all_plain(data: Path, tmp_path: Path) -> Path:
    """As ``data``, but every image is of a single colour."""
    folder = tmp_path / "plain"
    shutil.copytree(data, folder)
    (folder / "tiny.yaml").write_text((folder / "tiny.yaml").read_text().replace(str(data), str(folder)))
    for path in (folder / "coco/images").iterdir():
        Image.new("RGB", (80, 64), (9, 9, 9)).save(path)
    return folder


def test_three_in_a_row_are_left_out_and_the_fourth_ends_the_training(all_plain: Path) -> None:
    outcome = trained(all_plain, "run", spoil_output, SKIPPING)
    assert outcome.code == 4
    assert [line for line in outcome.warnings if "left out" in line][2].startswith("warning: iteration 3: ")
    assert outcome.errors[0].startswith("error: iteration 4: the loss is not finite")


def batches_of(config: Config) -> TrainingBatches:
    dataset = open_split(config, "train")
    order = TrainingOrder(wide_images(dataset), config.training.batch_size, config.seed)
    return TrainingBatches(dataset, order, TrainTransform(config.data, config.seed), 0, 1, config.training.batch_size)


class Scripted:
    """A learner whose losses are multiplied by what a list says, update for update."""

    def __init__(self, factors: Sequence[float], *overrides: str) -> None:
        config = tiny_config(*overrides)
        self.batches = batches_of(config)
        self.learner = Learner(tiny_model(*overrides), config.training, CPU, Processes())
        self.factors = iter(factors)
        self.number = 0
        self.forward = self.learner.model.forward
        self.learner.model.forward = self._losses  # type: ignore[method-assign]

    def _losses(self, *given: object) -> dict[str, Tensor]:
        factor = next(self.factors)
        return {name: value * factor for name, value in self.forward(*given).items()}  # type: ignore[arg-type]

    def updates(self) -> Iterator[Update]:
        """One update for each factor."""
        while True:
            batch = self.batches[self.number]
            assert isinstance(batch, Batch)
            try:
                yield self.learner.update([batch], self.number, 1e-3)
            except StopIteration:
                return
            self.number += 1


NAN, INF = float("nan"), float("inf")


def test_one_good_update_starts_the_count_anew() -> None:
    scripted = Scripted([NAN, INF, NAN, 1.0, NAN, 1.0])
    assert [scripted.learner.skipped_in_row for _ in zip(range(6), scripted.updates(), strict=False)] == [
        1, 2, 3, 0, 1, 0,
    ]  # fmt: skip


def test_the_count_goes_on_after_a_resume() -> None:
    scripted = Scripted([NAN, NAN])
    for _ in zip(range(2), scripted.updates(), strict=False):
        pass
    other = Scripted([])
    other.learner.load_state_dict(scripted.learner.state_dict())
    assert other.learner.skipped_in_row == 2


def test_one_micro_batch_that_is_not_finite_spoils_the_whole_update() -> None:
    scripted = Scripted([1.0, NAN])
    before = {name: value.clone() for name, value in scripted.learner.model.state_dict().items()}
    parts = [scripted.batches[0], scripted.batches[1]]
    update = scripted.learner.update([part for part in parts if isinstance(part, Batch)], 0, 1e-3)
    assert not update.made
    assert_same_tensors(before, scripted.learner.model.state_dict())


def test_running_statistics_do_not_take_in_a_batch_that_is_left_out(data: Path) -> None:
    outcome = trained(data, "run", spoil_output, SKIPPING, "model.backbone.norm=batch")
    assert outcome.code == 0, outcome.errors


# Half precision, where a gradient may overflow now and then


def test_a_gradient_that_overflows_in_half_precision_is_no_divergence(data: Path) -> None:
    outcome = trained(data, "run", spoil_gradient, "training.precision=fp16")
    assert outcome.code == 0
    assert not list(Path("run").glob("diverged-*"))
    counts = {record["iteration"]: record["skipped"] for record in lines_of(Path("run/metrics.jsonl"))}
    assert all(counts[number] == 1 for number in meetings(data))


def test_an_overflow_halves_the_scale() -> None:
    scripted = Scripted([1e6, 1e6], "training.precision=fp16")
    scales = [scripted.learner.scaler.get_scale() for _ in zip(range(2), scripted.updates(), strict=False)]
    assert scales == [2.0**15, 2.0**14]


def test_a_loss_that_is_not_finite_ends_a_training_in_half_precision(data: Path) -> None:
    outcome = trained(data, "run", spoil_output, "training.precision=fp16")
    assert outcome.code == 4
    assert "the loss is not finite" in outcome.errors[0]


def test_a_loss_that_is_not_finite_is_left_out_in_half_precision(data: Path) -> None:
    outcome = trained(data, "run", spoil_output, "training.precision=fp16", SKIPPING)
    assert outcome.code == 0
    assert sorted(Path("run").glob("diverged-*")) == [Path(f"run/diverged-{number:09d}") for number in meetings(data)]


def test_the_count_is_the_same_in_half_precision() -> None:
    scripted = Scripted([NAN, NAN, 1e-4, NAN], "training.precision=fp16")
    assert [scripted.learner.skipped_in_row for _ in zip(range(4), scripted.updates(), strict=False)] == [1, 2, 0, 1]


# Weights that are not finite


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, value: float) -> None:
    good = {"a": torch.zeros(3)}
    save_checkpoint(tmp_path, TrainingState(1, good, None, {}, {}))
    with pytest.raises(TrainingError, match=r"iteration 2: 1 of the weights are not finite \(b, ...\)"):
        save_checkpoint(tmp_path, TrainingState(2, {**good, "b": torch.tensor([0.0, value])}, None, {}, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_weights_that_are_not_finite_do_not_replace_those_of_the_same_iteration(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, TrainingState(1, {"a": torch.ones(3)}, None, {}, {}))
    with pytest.raises(TrainingError):
        save_checkpoint(tmp_path, TrainingState(1, {"a": torch.full((3,), NAN)}, None, {}, {}))
    torch.testing.assert_close(load_checkpoint(tmp_path / "step-000000001").model["a"], torch.ones(3))


def test_an_average_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    good = {"a": torch.zeros(3)}
    with pytest.raises(TrainingError, match="not finite"):
        save_checkpoint(tmp_path, TrainingState(1, good, {"a": torch.full((3,), NAN)}, {}, {}))


@pytest.fixture
def spoilt_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the fourth iteration on a weight is not finite."""
    update = Learner.update

    def spoil(self: Learner, parts: list[Batch], iteration: int, rate: float) -> Update:
        result = update(self, parts, iteration, rate)
        if iteration == 3:
            with torch.no_grad():
                next(self.model.parameters()).view(-1)[0] = NAN
        return result

    monkeypatch.setattr(Learner, "update", spoil)


@pytest.mark.usefixtures("spoilt_weights")
@pytest.mark.parametrize("every", [1, 2])
def test_a_run_whose_weights_are_lost_keeps_its_good_checkpoints(data: Path, every: int) -> None:
    outcome = trained(data, "run", _convolve, f"training.checkpoint_every={every}", "training.keep_checkpoints=2")
    assert outcome.code == 4
    assert len(outcome.errors) == 1
    saved = [number for number in (1, 2, 3) if number % every == 0]
    assert iterations_saved(Path("run")) == saved[-2:]


@pytest.mark.usefixtures("spoilt_weights")
def test_a_run_whose_weights_are_lost_at_its_end_writes_none(data: Path) -> None:
    outcome = trained(data, "run", _convolve, f"training.evaluate_every={ITERATIONS}")
    assert outcome.code == 4
    assert not list(Path("run").glob("*.safetensors"))


# Looking into it


def replayed(path: Path, spoil: Spoil = _convolve) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", spoil)
        return run(train.main, "--replay", path)


def rows_of(out: str) -> dict[str, list[float]]:
    """The numbers of a table's rows, by their titles."""
    found = {}
    for line in out.splitlines():
        if matched := re.fullmatch(r"(as it was|image .*?, \w+) +((?:\S+ *){5})", line):
            found[matched[1]] = [float(value) for value in matched[2].split()]
    return found


@pytest.fixture(scope="module")
def findings(diverged: tuple[Outcome, Path]) -> Outcome:
    """What is found in the batch of the plain image."""
    return replayed(kept_batch(diverged[1]), spoil_output)


def test_a_replay_ends_well(findings: Outcome) -> None:
    assert findings.code == 0
    assert not findings.err


def test_a_replay_finds_the_image(data: Path, findings: Outcome) -> None:
    rows = rows_of(findings.out)
    for image in companions(data):
        finite = all(map(math.isfinite, rows[f"image '{image}', fp32"]))
        assert finite == (image != PLAIN)


def test_a_replay_finds_the_first_layer(findings: Outcome) -> None:
    lines = findings.out.splitlines()
    places = [number for number, line in enumerate(lines) if "first output that is not finite" in line]
    assert [lines[number].strip() for number in places] == [f"first output that is not finite: {FIRST_LAYER}"]
    assert lines[places[0] - 1].startswith(f"image '{PLAIN}'")


def test_a_replay_tells_of_the_weights_and_of_what_was_seen(data: Path, findings: Outcome) -> None:
    assert f"iteration {meetings(data)[0]}, in fp32 on cpu" in findings.out
    assert "all weights are finite" in findings.out
    assert not all(map(math.isfinite, rows_of(findings.out)["as it was"]))


def test_a_replay_finds_a_gradient_that_fails_alone(steep: tuple[Outcome, Path]) -> None:
    outcome = replayed(kept_batch(steep[1]), spoil_gradient)
    assert "first output" not in outcome.out
    *losses, gradient = rows_of(outcome.out)[f"image '{PLAIN}', fp32"]
    assert all(map(math.isfinite, losses))
    assert not math.isfinite(gradient)


def test_a_replay_after_the_cause_is_mended_is_finite(diverged: tuple[Outcome, Path]) -> None:
    out = replayed(kept_batch(diverged[1])).out
    assert "first output" not in out
    rows = rows_of(out)
    assert all(math.isfinite(value) for title, row in rows.items() if title != "as it was" for value in row)


def test_a_replay_in_half_precision_compares_with_full_precision(data: Path) -> None:
    trained(data, "run", spoil_output, "training.precision=bf16")
    titles = rows_of(replayed(kept_batch(Path("run"))).out)
    assert set(titles) == {"as it was"} | {
        f"image '{image}', {kind}" for image in companions(data) for kind in ("bf16", "fp32")
    }


def test_a_replay_names_weights_that_are_not_finite(data: Path, tmp_path: Path) -> None:
    config = load_config(data / "tiny.yaml")
    learner = Learner(tiny_model(), config.training, CPU, Processes())
    with torch.no_grad():
        learner.model.get_parameter(f"{FIRST_LAYER}.weight").fill_(NAN)
    batch = batches_of(config)[0]
    assert isinstance(batch, Batch)
    update = learner.update([batch], 0, 1e-3)
    path = save_diverged(tmp_path, 0, learner, config, [batch], 1, update)
    assert path is not None
    assert f"weights that are not finite: {FIRST_LAYER}.weight" in replayed(path).out


def test_the_images_of_a_replay_make_up_the_batch(data: Path, tmp_path: Path) -> None:
    config = load_config(data / "tiny.yaml")
    learner = Learner(tiny_model(), config.training, CPU, Processes())
    parts = [batches_of(config)[0], batches_of(config)[1]]
    batches = [part for part in parts if isinstance(part, Batch)]
    weights = {name: value.clone() for name, value in learner.model.state_dict().items()}
    update = learner.update(batches, 0, 1e-3)
    learner.model.load_state_dict(weights)
    path = save_diverged(tmp_path, 0, learner, config, batches, 1, update)
    assert path is not None
    rows = rows_of(replayed(path).out)
    images = [row[:4] for title, row in rows.items() if title.startswith("image")]
    assert len(images) == 4
    means = [sum(column) / 4 for column in zip(*images, strict=True)]
    assert means == pytest.approx(rows["as it was"][:4], rel=1e-3)


OTHER_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "empty": lambda path: path.touch(),
    "text": lambda path: path.write_text(TINY),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "a number": lambda path: torch.save(5, path),
    "another dict": lambda path: torch.save({"model": torch.zeros(3)}, path),
    "another format": lambda path: torch.save({"format": "detector-diverged-9"}, path),
    "the format alone": lambda path: torch.save({"format": "detector-diverged-1"}, path),
    "objects": lambda path: torch.save({"format": "detector-diverged-1", "a": Path("/")}, path),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_replay_of_something_else_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rank0.pt"
    OTHER_FILES[kind](path)
    outcome = replayed(path)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"error: {path}: ")
    assert len(line) <= MAX_LINE


def test_a_replay_of_a_file_that_is_cut_off_is_told(tmp_path: Path, diverged: tuple[Outcome, Path]) -> None:
    path = tmp_path / "rank0.pt"
    shutil.copy(kept_batch(diverged[1]), path)
    os.truncate(path, path.stat().st_size // 2)
    outcome = replayed(path)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1


def test_a_replay_takes_no_configuration(data: Path, diverged: tuple[Outcome, Path]) -> None:
    outcome = run(train.main, data / "tiny.yaml", "--replay", kept_batch(diverged[1]))
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
