"""JSON files of strangers, read strictly."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from detector.errors import DatasetError, quote
from detector.regular_file import read_regular

MAX_FILE_BYTES = 2 * 1024**3


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        DatasetError: it is missing, too large, cut off, not UTF-8, nested too deeply, holds NaN or a key twice.
    """
    try:
        text = read_regular(path, MAX_FILE_BYTES).decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}; is the file cut off?"
        ) from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise DatasetError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise DatasetError(f"{path}: {quote(str(error), 120)[1:-1]}") from None
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None


def parse_json(text: bytes) -> Any:
    """Parses JSON that lies in memory.

    Raises:
        ValueError: it is not valid, holds NaN or a key twice.
    """
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)


def is_number(value: Any) -> bool:
    """Whether a value of a file is a finite number of reasonable size, and not a truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e15 and math.isfinite(value)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice} stands twice in one object")
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"holds {name}, which is no number in JSON")
