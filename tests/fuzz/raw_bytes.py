"""Mutations of bytes that know nothing of the format."""

from __future__ import annotations

from random import Random

_MAGIC = (
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x00\x00",
    b"\r\n", b"\n", b"\x1b[2J", b'"', b"{", b"[", b"<", b"&", b"%", b"\xed\xa0\x80", b"\xef\xbb\xbf",
)  # fmt: skip


def truncate(random: Random, data: bytes) -> bytes:
    """Cut off at any place."""
    return data[: random.randrange(len(data) + 1)]


def flip(random: Random, data: bytes) -> bytes:
    """A few bits turned over."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def insert(random: Random, data: bytes) -> bytes:
    """Some bytes put in."""
    place = random.randrange(len(data) + 1)
    new = random.choice((random.choice(_MAGIC), random.randbytes(random.randrange(1, 40))))
    return data[:place] + new * random.choice((1, 1, 1, 100)) + data[place:]


def overwrite(random: Random, data: bytes) -> bytes:
    """Some bytes replaced."""
    place, new = random.randrange(len(data) + 1), random.choice(_MAGIC)
    return data[:place] + new + data[place + len(new) :]


def remove(random: Random, data: bytes) -> bytes:
    """A stretch taken out."""
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.randrange(1, 200) :]


def repeat(random: Random, data: bytes) -> bytes:
    """A stretch written several times."""
    start = random.randrange(len(data) + 1)
    stretch = data[start : start + random.randrange(1, 400)]
    return data[:start] + stretch * random.choice((2, 3, 50)) + data[start + len(stretch) :]


def swap(random: Random, data: bytes) -> bytes:
    """The parts before and after a place exchanged."""
    place = random.randrange(len(data) + 1)
    return data[place:] + data[:place]


def splice(random: Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one file with the end of another."""
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


_ALL = (truncate, truncate, flip, flip, flip, insert, overwrite, overwrite, remove, repeat, swap)


def mutate(random: Random, data: bytes, other: bytes = b"") -> tuple[bytes, str]:
    """One to three mutations; with what they were."""
    names = []
    for _ in range(random.choice((1, 1, 2, 3))):
        if other and random.random() < 0.1:
            data, name = splice(random, data, other), "splice"
        else:
            operation = random.choice(_ALL)
            data, name = operation(random, data), operation.__name__
        names.append(name)
    return data, "bytes: " + ", ".join(names)


def reencode(random: Random, text: str) -> tuple[bytes, str]:
    """The text in another encoding, or with something around it that does not belong there."""
    encoding = random.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "nul", "twice", "garbage"))
    whole = text.encode("utf-8", "surrogatepass")
    if encoding == "nul":
        return whole + b"\0", "NUL at the end"
    if encoding == "twice":
        return whole + b"\n" + whole, "there twice"
    if encoding == "garbage":
        return b"\xff\xfe\xfd" + whole, "garbage before it"
    return text.encode(encoding, "surrogatepass"), encoding
