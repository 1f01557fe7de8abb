"""A look at a pickle before it is read: no restricted reader protects from a few bytes that take all memory or time.

The reader's memo has a place for each number up to the largest one in the pickle. Tuples may contain each other; to
hash one takes a step for each thing within it, however often that is the same, and a level of the C stack for each
level of nesting. So a key of a hundred bytes can take for ever, and one of a megabyte ends the process.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
from typing import IO, Any

_MAX_DEPTH = 50
_MAX_WEIGHT = 100_000
# CIFAR-100 has 200 thousand, a ResNet-152 30 thousand. A set, the largest thing of one byte, takes as much as three
# others; so many of any kind stay under 100 MB.
_MAX_COMMANDS = 1_000_000
_SETS = ("EMPTY_SET", "FROZENSET")
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
_BYTEARRAYS = ("builtins bytearray", "__builtin__ bytearray")  # torch's restricted reader would call it
# The depth of nested tuples, and what hashing them costs.
_PLAIN = (0, 1)
_Cost = tuple[int, int]


class PickleBomb(pickle.UnpicklingError):
    """What takes far more memory or time than its size; the message says in two or three words what."""


def refuse_bombs(file: IO[bytes]) -> None:
    """Goes through one pickle, from the file's position to its end, without making anything of it.

    Raises:
        PickleBomb: tuples are nested deeply, or hold each other many times; there are too many commands, a
            memo of more places than there may be commands, or a ``bytearray``, which a length is enough to make.
        ValueError: it is no pickle.
    """
    stack: list[_Cost | None] = []  # None is a mark
    memo: dict[Any, _Cost] = {}
    commands = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in texts
        for opcode, argument, _ in pickletools.genops(file):
            commands += 3 if opcode.name in _SETS else 1
            if commands > _MAX_COMMANDS:
                raise PickleBomb("commands without end")
            if opcode.name == "MEMOIZE":
                memo[len(memo)] = _top(stack)
            elif opcode.name.endswith("PUT"):
                assert isinstance(argument, int)
                if argument > _MAX_COMMANDS:
                    raise PickleBomb("a memo without end")
                memo[argument] = _top(stack)
            elif opcode.name.endswith("GET"):
                stack.append(memo.get(argument, _PLAIN))
            elif opcode.name == "DUP":
                stack.append(_top(stack))
            else:
                if opcode.name == "GLOBAL" and argument in _BYTEARRAYS:
                    raise PickleBomb("builtins.bytearray")
                _apply(opcode, stack)


def _apply(opcode: Any, stack: list[_Cost | None]) -> None:
    taken: list[_Cost] = []
    before = list(opcode.stack_before)
    if pickletools.markobject in before or (opcode.name == "POP" and stack and stack[-1] is None):
        while stack and (cost := stack.pop()) is not None:
            taken.append(cost)
        before = before[: before.index(pickletools.markobject)] if pickletools.markobject in before else []
    taken += [stack.pop() or _PLAIN for _ in before if stack]
    for item in opcode.stack_after:
        if item is pickletools.markobject:
            stack.append(None)
        else:
            stack.append(_of_tuple(taken) if opcode.name in _TUPLES else _PLAIN)


def _of_tuple(parts: list[_Cost]) -> _Cost:
    depth = 1 + max((part[0] for part in parts), default=0)
    weight = 1 + sum(part[1] for part in parts)
    if depth > _MAX_DEPTH or weight > _MAX_WEIGHT:
        raise PickleBomb("tuples nested without end")
    return depth, weight


def _top(stack: list[_Cost | None]) -> _Cost:
    return (stack[-1] if stack else None) or _PLAIN
