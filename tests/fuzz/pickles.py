"""Pickles that nobody means well with."""

from __future__ import annotations

import os
import pickle
import struct
from random import Random
from typing import Any

from tests.fuzz import raw_bytes

# Under which tensors may stand; whoever turns them into text or hashes them must live through it.
KEYS: tuple[Any, ...] = (
    "", "x", "\x1b[2J", "a\nb", "\ud800", "x" * 100_000, "backbone.stem.conv1.weight", "module.x", 5, 1.5, None, True,
    b"x",
    10**5000, float("nan"), (1, 2), ((1, (2, (3,))),),
)  # fmt: skip
_GLOBALS = (
    ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "getattr"),
    ("subprocess", "Popen"), ("numpy", "load"), ("numpy.core.multiarray", "_reconstruct"), ("numpy", "dtype"),
    ("codecs", "encode"),
    ("torch", "load"), ("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"), ("numpy", "ndarray"),
    ("_codecs", "encode"),
    ("torch.serialization", "_get_layout"), ("torch", "FloatStorage"), ("torch.storage", "_load_from_bytes"),
    ("builtins", "bytearray"),
)  # fmt: skip


class Run:
    """Runs a command as soon as it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def nested_key(depth: int) -> bytes:
    """A pickle of 2 MB at most, whose key is a tuple in a tuple in a tuple ..."""
    return b"\x80\x02}K\x01" + b"\x85" * depth + b"K\x01s."


def doubling_key(depth: int) -> bytes:
    """A pickle of a few bytes, whose key holds ``2 ** depth`` numbers, since each tuple holds the one before twice."""
    return b"\x80\x02}K\x01" + b"q\x01h\x01\x86" * depth + b"K\x01s."


def change_pickle(random: Random, data: bytes, canary: str) -> tuple[bytes, str]:
    """Changes commands of a pickle."""
    operation = random.choice(("bytes", "payload", "global", "number", "deep", "wide", "key", "repeat"))
    place = random.randrange(2, len(data))
    if operation == "bytes":
        return raw_bytes.mutate(random, data)
    if operation == "payload":
        new = pickle.dumps(Run(f"touch {canary}"), protocol=2)[2:-1] + b"0"
        return data[:2] + new + data[2:], "pickle: payload"
    if operation == "global":
        module, name = random.choice(_GLOBALS)
        arguments = random.choice((b")", b"K\x01\x85", b"X\x02\0\0\0id\x85", b"(K\x01K\x02t"))
        build = random.choice((b"", b"}b", b"}X\x01\0\0\0aK\x01sb", b"N}X\x08\0\0\0__name__K\x01s\x86b"))
        new = f"c{module}\n{name}\n".encode() + arguments + random.choice((b"R", b"\x81", b"0")) + build + b"0"
        return data[:2] + new + data[2:], f"pickle: {module}.{name}"
    if operation == "number":
        new = struct.pack("<I", random.choice((0, 2**31 - 1, 2**32 - 1, 10**6)))
        return data[:place] + new + data[place + 4 :], f"pickle: number at {place}"
    if operation == "deep":
        depth = random.choice((50, 10_000, 1_000_000))
        whole = nested_key(depth) if random.random() < 0.5 else b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
        return whole, f"pickle: depth {depth}"
    if operation == "wide":
        depth = random.choice((10, 40, 100))
        return doubling_key(depth), f"pickle: doubled {depth} times"
    if operation == "key":
        key = pickle.dumps(random.choice(KEYS), protocol=4)[2:-1]
        return data[:2] + b"}" + key + b"K\x01s0" + data[2:], "pickle: key"
    return data[:2] + b"]0" * 100_000 + data[2:], "pickle: repeated"
