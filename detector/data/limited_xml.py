"""XML of strangers, read no further than it is plausible."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder

from defusedxml.ElementTree import DefusedXMLParser

from detector.regular_file import read_regular

MAX_BYTES = 4 * 1024**2
MAX_DEPTH = 16
MAX_ELEMENTS = 200_000


class ExcessError(ValueError):
    """There are too many elements, or they are nested too deeply."""


class _Builder(TreeBuilder):
    """Stops the parser as soon as there is too much."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._count = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        """An element begins."""
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise ExcessError(f"more than {MAX_DEPTH} levels or {MAX_ELEMENTS} elements")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        """An element ends."""
        self._depth -= 1
        return super().end(tag)


def read_xml(path: str | Path) -> Element:
    """The outermost element of a file.

    Raises:
        OSError: it cannot be read, or is larger than ``MAX_BYTES``.
        ParseError: it is not valid.
        DefusedXmlException: it holds a DOCTYPE.
        ValueError: ``ExcessError``, or an encoding that is not supported.
        LookupError: an encoding that does not exist.
    """
    parser = DefusedXMLParser(target=_Builder(), forbid_dtd=True)
    parser.feed(read_regular(path, MAX_BYTES))
    root: Element = parser.close()
    return root
