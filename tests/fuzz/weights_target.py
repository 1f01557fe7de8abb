"""Weights files: safetensors of this toolkit, files of torch.save, pickles of numpy arrays."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from detector.config.load import dump_config
from detector.engine.setup import LoadedModel, load_model
from detector.models import resnet
from detector.weights.initial import load_initial
from detector.weights.layouts import DETECTRON2, to_layout
from tests.fuzz import raw_bytes
from tests.fuzz.cases import Case, Reading
from tests.fuzz.json_text import HOSTILE
from tests.fuzz.pickles import KEYS, Run, change_pickle
from tests.reliability.runs import NARROW
from tests.tiny import NUM_CLASSES, tiny_config, tiny_model

_NAMES = [f"class {number}" for number in range(NUM_CLASSES)]
_METADATA: dict[str, tuple[str, ...]] = {
    "format": ("", "detector-weights-2", "pt"),
    "config": ("", "[", "a: &a [*a]", "model: {backbone: {depth: 152}}", "x: 1", "- a", "\x1b[2J: 1", "model: 5",
    "[" * 5000,
               "!!python/object/apply:os.system [id]", "base: /etc/passwd", "model: {anchors: {sizes: [1, 2, 3]}}"),
    "class_names": ("", "[]", "5", "{}", "[1]", '["a"]', json.dumps(["a"] * 6), json.dumps(["\x1b[2J", *_NAMES[1:]]),
    "null",
                    json.dumps(["\ud800", *_NAMES[1:]]), json.dumps(["x" * 100_000, *_NAMES[1:]]), "[" * 100_000,
                    json.dumps(_NAMES * 100_000)),
    "category_ids": ("", "[]", "[1, 1, 1, 1, 1, 1]", "[null, 1, 2, 3, 4, 5]", "[[], 1, 2, 3, 4, 5]",
    "[1.5, 1, 2, 3, 4, 5]",
                     "[{}, 1, 2, 3, 4, 5]", "[NaN, 1, 2, 3, 4, 5]", "[true, 1, 2, 3, 4, 5]",
                     "[" + "9" * 5000 + ", 1, 2, 3, 4, 5]"),
    "iteration": ("", "x", "-1", "9" * 5000, "1.5", "٣"),
    "score_threshold": ("", "NaN", "2", "-1", '"a"', "[]", "true", "1e999"),
    "class_thresholds": ("", "[NaN, 0, 0, 0, 0, 0]", "[0]", "5", '["a", 0, 0, 0, 0, 0]', "[null, 0, 0, 0, 0, 0]", "{}"),
    "run": ("\x1b[2J", "/etc", "x" * 10_000),
    "fingerprint": ("\x1b[2J",),
}  # fmt: skip


class WeightsTarget:
    """Changed files of a network with very few channels."""

    name = "weights"

    def __init__(self, folder: Path, shared: Path | None) -> None:
        self.folder = folder
        self.canary = folder / "canary"
        # Channels of the stages; the process that runs a target does nothing else.
        assert hasattr(resnet, "_WIDTHS")
        resnet._WIDTHS = NARROW
        self.config = tiny_config()
        self.own = dict(tiny_model().state_dict())
        self.expected = {key: tuple(value.shape) for key, value in self.own.items()}
        # Batch norms, so that other toolkits' names fit.
        norms = tiny_model("model.backbone.norm=frozen_batch")
        self.foreign = to_layout(DETECTRON2, norms.state_dict(), self.config.model.anchors)
        self.metadata = {
            "format": "detector-weights-1", "config": dump_config(self.config), "class_names": json.dumps(_NAMES),
            "category_ids": json.dumps(list(range(NUM_CLASSES))), "iteration": "5", "score_threshold": "null",
            "class_thresholds": "[]", "run": "", "fingerprint": "",
        }  # fmt: skip

    def case(self, random: Random) -> Case:
        """Damage of bytes, of the header or the directory, of the pickle's commands, or tensors of odd kinds."""
        kinds: tuple[Callable[[Random], tuple[bytes, str]], ...] = (
            self._safetensors, self._header, self._metadata, self._torch, self._archive, self._pickled, self._commands,
        )  # fmt: skip
        data, note = random.choice(kinds)(random)
        return Case({"weights.bin": data}, [note])

    def readings(self, case: Case) -> Sequence[Reading]:
        """Loaded whole, and as what a training starts from."""
        path = self.folder / "weights.bin"
        self.canary.unlink(missing_ok=True)
        model = self.config.model.model_copy(update={"weights": str(path)})
        network = tiny_model()
        return (
            Reading("load_model", lambda: load_model(path), self._faults, None, (str(path),)),
            Reading(
                "load_initial",
                lambda: load_initial(network, model),
                lambda _: self._faults_of_state(network.state_dict()),
                None,
                (str(path),),
            ),
        )

    def _faults(self, loaded: LoadedModel) -> list[str]:
        info = loaded.info
        wrong = self._faults_of_state(loaded.model.state_dict(), whole=False)
        if len(set(info.class_names)) < len(info.class_names) or len(set(info.category_ids)) < len(info.category_ids):
            wrong.append("a class is there twice")
        if not all(isinstance(name, str) and name and name.isprintable() for name in info.class_names):
            wrong.append("a class name is no text")
        if not all(isinstance(item, int | str) and not isinstance(item, bool) for item in info.category_ids):
            wrong.append("a category id is no id")
        if info.iteration < 0 or not all(0 <= value <= 1 for value in info.class_thresholds):
            wrong.append("iteration or thresholds out of range")
        return wrong

    def _faults_of_state(self, state: dict[str, Tensor], whole: bool = True) -> list[str]:
        wrong = ["something in the file was run"] if self.canary.exists() else []
        wrong += [f"{key} is not finite" for key, value in state.items() if not torch.isfinite(value.float()).all()]
        if whole and {key: tuple(value.shape) for key, value in state.items()} != self.expected:
            wrong.append("shapes changed")
        return wrong[:3]

    def _safetensors(self, random: Random) -> tuple[bytes, str]:
        return raw_bytes.mutate(random, save(self.own, self.metadata))

    def _header(self, random: Random) -> tuple[bytes, str]:
        whole = save(self.own, self.metadata)
        length = struct.unpack("<Q", whole[:8])[0]
        header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
        key = random.choice([key for key in header if key != "__metadata__"])
        operation = random.choice(
            ("dtype", "shape", "offsets", "remove", "rename", "extra", "length", "value", "empty")
        )
        if operation == "dtype":
            header[key]["dtype"] = random.choice(
                ("F64", "F16", "BF16", "I32", "U8", "BOOL", "F8_E4M3", "C64", "X", 5, None)
            )
        elif operation == "shape":
            header[key]["shape"] = random.choice(
                ([], [0], [-1], [2**63], [2**32, 2**32], [0, 2**62, 2**62], [1] * 100, None, "x")
            )
        elif operation == "offsets":
            header[key]["data_offsets"] = random.choice(
                ([0, 0], [0, 2**62], [-1, 5], [8, 4], [0], None, [0, 4], [2**64, 2**64])
            )
        elif operation == "remove":
            del header[key]
        elif operation == "rename":
            header[random.choice(KEYS[:8])] = header.pop(key)
        elif operation == "extra":
            header[random.choice(("x", "\x1b[2J", "x" * 100_000))] = {
                "dtype": "F32",
                "shape": [0],
                "data_offsets": [len(body)] * 2,
            }
        elif operation == "value":
            header[key] = random.choice([item for item in HOSTILE if not isinstance(item, str)])
        elif operation == "empty":
            header[key] |= {"shape": [0, 2**40, 2**40], "data_offsets": header[key]["data_offsets"][:1] * 2}
        text = json.dumps(header).encode()
        size = random.choice((0, 2**63, 2**32, 100_000_000, len(text) - 1)) if operation == "length" else len(text)
        return struct.pack("<Q", size) + text + body, f"header: {operation} of {key}"

    def _metadata(self, random: Random) -> tuple[bytes, str]:
        key = random.choice(list(_METADATA))
        value = random.choice(_METADATA[key])
        metadata = self.metadata | {key: value}
        if random.random() < 0.1:
            del metadata[key]
        return save(self.own, metadata), f"metadata {key}: {value[:60]!a}"

    def _torch(self, random: Random) -> tuple[bytes, str]:
        """Tensors of odd kinds under sound names, sound ones under odd names."""
        tensors: dict[Any, Any] = dict(self.foreign)
        name = random.choice(list(tensors))
        kind, value = random.choice(_odd_tensors(tensors[name]))
        if random.random() < 0.2:
            kind, value = "odd key", tensors.pop(name)
            name = random.choice([key for key in KEYS if not isinstance(key, tuple)])
        tensors[name] = value
        content: Any = {"model": tensors} if random.random() < 0.5 else tensors
        if random.random() < 0.1:
            content = random.choice(([tensors], tensors[name], {"model": 5}, {"model": {}}, None, {"model": [1]}))
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=random.random() < 0.7)
        return buffer.getvalue(), f"torch: {kind} for {_shown(name)}"

    def _archive(self, random: Random) -> tuple[bytes, str]:
        """The zip written again with something changed."""
        buffer = io.BytesIO()
        torch.save(self.foreign, buffer)
        if random.random() < 0.3:
            return raw_bytes.mutate(random, buffer.getvalue())
        with zipfile.ZipFile(buffer) as archive:
            members = {item.filename: archive.read(item) for item in archive.infolist()}
        name = random.choice(list(members))
        operation = random.choice(
            ("deflate", "remove", "cut", "grow", "pickle", "pickle", "pickle", "byteorder", "rename")
        )
        note = f"archive: {operation} {name}"
        program = next(key for key in members if key.endswith("data.pkl"))
        if operation == "remove":
            del members[name]
        elif operation == "cut":
            members[name] = members[name][: len(members[name]) // 2]
        elif operation == "grow":
            members[name] += b"\0" * 1000
        elif operation == "pickle":
            members[program], inner = change_pickle(random, members[program], str(self.canary))
            note = f"archive: {inner}"
        elif operation == "byteorder":
            members[program.replace("data.pkl", "byteorder")] = random.choice((b"big", b"", b"x"))
        elif operation == "rename":
            members[random.choice(("../x", "/x", "a/b/data.pkl"))] = members.pop(name)
        rewritten = io.BytesIO()
        with zipfile.ZipFile(rewritten, "w") as archive:
            for key, content in members.items():
                method = zipfile.ZIP_DEFLATED if operation == "deflate" and key == name else zipfile.ZIP_STORED
                archive.writestr(key, content, method)
        return rewritten.getvalue(), note

    def _pickled(self, random: Random) -> tuple[bytes, str]:
        """A pickle with odd arrays, odd keys, or a payload."""
        arrays: dict[Any, Any] = {name: value.numpy() for name, value in self.foreign.items()}
        name = random.choice(list(arrays))
        kind, value = random.choice(_odd_arrays(arrays[name], str(self.canary)))
        if random.random() < 0.2:
            kind, value = "odd key", arrays.pop(name)
            name = random.choice(KEYS)
        arrays[name] = value
        content: Any = (
            {"model": arrays, "__author__": "x"} if random.random() < 0.5 else collections.OrderedDict(arrays)
        )
        return pickle.dumps(content, protocol=random.choice((2, 3, 4, 5))), f"pickle: {kind} for {_shown(name)}"

    def _commands(self, random: Random) -> tuple[bytes, str]:
        data = pickle.dumps({name: value.numpy() for name, value in self.foreign.items()}, protocol=4)
        return change_pickle(random, data, str(self.canary))


def _shown(name: object) -> str:
    return ascii(name)[:60] if isinstance(name, str) else type(name).__name__


def _odd_tensors(tensor: Tensor) -> list[tuple[str, Any]]:
    one = torch.zeros(1)
    quantised = torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)
    return [
        ("sparse", tensor.to_sparse()), ("meta", tensor.to("meta")), ("complex", tensor.to(torch.complex64)),
        ("half", tensor.half()), ("bool", tensor.bool()), ("int", tensor.to(torch.int64)), ("double", tensor.double()),
        ("expanded", one.expand(tensor.shape)), ("huge", one.expand(10**6, 10**6, 10**6)), ("NaN", tensor * torch.nan),
        ("scalar", torch.tensor(1.0)), ("empty", torch.zeros(0)), ("parameter", torch.nn.Parameter(tensor)),
        ("transposed", tensor.transpose(0, -1)), ("quantised", quantised),
        ("none", None), ("number", 5), ("text", "x"), ("array", tensor.numpy()), ("list", [tensor]),
        ("dict", {"a": tensor}),
        ("float8", tensor.to(torch.float8_e4m3fn)), ("uint16", tensor.to(torch.uint16)),
        ("negative", torch.randn(2, 2).conj()),
        ("negative zero", torch.view_as_complex(torch.zeros(3, 2)).conj().imag), ("size", torch.Size([1])),
    ]  # fmt: skip


def _odd_arrays(array: np.ndarray, canary: str) -> list[tuple[str, Any]]:
    return [
        ("payload", Run(f"touch {canary}")), ("big-endian", array.astype(">f4")), ("half", array.astype("f2")),
        ("long double", array.astype(np.longdouble)), ("objects", np.array([{}, []], dtype=object)),
        ("texts", np.array(["a"])),
        ("record", np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])), ("times", np.zeros(3, "M8[s]")),
        ("scalar", np.float32(1)),
        ("0-dim", np.array(1.0, "f4")), ("fortran", np.asfortranarray(array)), ("empty", np.zeros(0, "f4")),
        ("void", np.zeros(2, "V3")),
        ("complex", array.astype("c8")), ("bool", array.astype(bool)), ("unsigned", array.astype("u4")),
        ("masked", np.ma.array([1, 2])),
        ("matrix", np.asmatrix(np.eye(2))), ("NaN", array * np.nan), ("none", None), ("text", "x"),
        ("path", Path(os.devnull)),
        ("wide", np.zeros((1,) * 60, "f4")), ("strided", np.zeros((9, 9), "f4")[::2, ::3]),
    ]  # fmt: skip
