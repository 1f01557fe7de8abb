"""What loading has done."""

from __future__ import annotations

from dataclasses import dataclass

from detector.errors import quote


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor.

    Attributes:
        source: the file.
        layout: its name.
        matched: our keys that were filled.
        missing: our keys that the file does not have.
        unexpected: names in the file that have no place in the model.
        wrong_shape: our keys whose tensor in the file has another shape, with both shapes.
    """

    source: str
    layout: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for people, each tensor by name."""
        counts = f"{len(self.matched)} tensors matched, {len(self.missing)} missing"
        head = f"{self.source} ({self.layout} layout): {counts}, {len(self.unexpected)} unexpected"
        lines = [f"{head}, {len(self.wrong_shape)} of another shape"]
        for title, names in (
            ("missing", self.missing), ("unexpected", self.unexpected), ("another shape", self.wrong_shape),
        ):  # fmt: skip
            lines += [f"  {title}: {', '.join(quote(name, 120)[1:-1] for name in names)}"] if names else []
        return lines
