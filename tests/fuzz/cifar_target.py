"""CIFAR: pickles of numpy arrays (CIFAR-10 as for Python), and plain bytes (CIFAR-100)."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np

from detector.data.classification.cifar import CifarDataset, open_cifar
from tests.fuzz import raw_bytes
from tests.fuzz.cases import Case, Reading
from tests.fuzz.pickles import KEYS, Run, change_pickle

_IMAGES = np.arange(2 * 3072, dtype=np.uint32).reshape(2, 3072).astype(np.uint8)
_ODD: tuple[Any, ...] = (*KEYS, [], {}, [[]], -1, 2**40, _IMAGES, _IMAGES[:1], np.zeros((0, 3072), np.uint8))
_META, _BATCH = "cifar-10-batches-py/batches.meta", "cifar-10-batches-py/test_batch"
_NAMES, _BYTES = "cifar-100-binary/fine_label_names.txt", "cifar-100-binary/test.bin"


class CifarTarget:
    """Changed files of two images each."""

    name = "cifar"

    def __init__(self, folder: Path, shared: Path | None) -> None:
        self.folder = folder
        self.canary = folder / "canary"
        self.pickled: dict[str, dict[Any, Any]] = {
            _META: {b"label_names": [b"cat", b"dog", b"cow"], b"num_vis": 3072},
            _BATCH: {b"labels": [0, 2], b"data": _IMAGES, b"filenames": [b"a.png", b"b.png"]},
        }
        records = np.concatenate([np.array([[0, 0], [0, 2]], dtype=np.uint8), _IMAGES], axis=1)
        self.sound: dict[str, bytes] = {name: pickle.dumps(value, 2) for name, value in self.pickled.items()}
        self.sound |= {_NAMES: b"cat\ndog\ncow\n", _BYTES: records.tobytes()}

    def case(self, random: Random) -> Case:
        """Damage of one file's bytes, of a pickle's commands, or odd values and keys in it."""
        name = random.choice(list(self.sound))
        how = random.choice(("bytes", "commands", "values")) if name in self.pickled else "bytes"
        if how == "bytes":
            data, note = raw_bytes.mutate(random, self.sound[name])
        elif how == "commands":
            data, note = change_pickle(random, self.sound[name], str(self.canary))
        else:
            data, note = self._odd(random, name)
        return Case({**self.sound, name: data}, [f"{name}: {note}"])

    def readings(self, case: Case) -> Sequence[Reading]:
        """Both sets."""
        self.canary.unlink(missing_ok=True)
        return (self._reading("cifar10", "cifar-10-batches-py"), self._reading("cifar100", "cifar-100-binary"))

    def _reading(self, kind: Literal["cifar10", "cifar100"], folder: str) -> Reading:
        place = self.folder / folder
        return Reading(kind, lambda: open_cifar(place, kind, "test", None, {}), self._faults, None, (str(place),))

    def _odd(self, random: Random, name: str) -> tuple[bytes, str]:
        content: Any = {
            key: list(value) if isinstance(value, list) else value for key, value in self.pickled[name].items()
        }
        key, odd = random.choice(list(content)), random.choice(_ODD)
        odd = Run(f"touch {self.canary}") if random.random() < 0.05 else odd
        operation = random.choice(("key", "value", "item", "remove", "whole"))
        if operation == "key":
            content[random.choice(KEYS)] = odd
        elif operation == "item" and isinstance(content[key], list):
            content[key][random.randrange(len(content[key]))] = odd
        elif operation == "remove":
            del content[key]
        elif operation == "whole":
            content = odd
        else:
            content[key] = odd
        return pickle.dumps(content, random.choice((2, 4))), f"{operation} of {key.decode()}: {type(odd).__name__}"

    def _faults(self, found: CifarDataset) -> list[str]:
        names, labels = found.annotations.class_names, found.annotations.labels
        wrong = ["something in the file was run"] if self.canary.exists() else []
        if not all(isinstance(name, str) and name and name.isprintable() for name in names) or len(set(names)) < 2:
            wrong.append("a class name is no text")
        if labels.min() < 0 or labels.max() >= len(names):
            wrong.append("a label is no class")
        if found.images.dtype != np.uint8 or found.images.shape != (len(labels), 32, 32, 3):
            wrong.append("the images are none")
        return wrong
