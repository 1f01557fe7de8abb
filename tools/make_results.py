"""Writes configs/RESULTS.md, the ledger of published numbers, from configs/results.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

_HEAD = """# Published numbers

Written by `tools/make_results.py` from `results.json`; do not edit. "not run" means that nobody here has had the
machines to try. The tolerance is the run-to-run noise that people report.

| config | number | expected | source | state | cost | train and evaluate |
|---|---|---|---|---|---|---|
"""

_FOOT = """
He et al.'s global context (51.1 AP50 / 30.0 AP on COCO) is not built, and with it neither their multi-scale row (53.8 /
32.5), which includes it.
"""


def render(results: list[dict[str, Any]]) -> str:
    """The page."""
    return _HEAD + "".join(_row(result) for result in results) + _FOOT


def _row(result: dict[str, Any]) -> str:
    expected = "-" if result["expected"] is None else f"{result['expected']} +- {result['tolerance']}"
    run = f"runs/{Path(result['config']).stem}"
    tool = "pretrain.py" if result["config"].startswith("cifar/") else "train.py"
    command = f"`python tools/{tool} configs/{result['config']}`"
    if "overrides" in result:
        command += f", then `python tools/evaluate.py {run}/model_final.safetensors {result['overrides']}`"
    cells = [f"`{result['config']}`", result["metric"], expected, result["source"], result["state"], result["cost"]]
    return "| " + " | ".join([*cells, command]) + " |\n"


def main() -> None:
    """Rewrites the page."""
    results = json.loads((CONFIGS / "results.json").read_text(encoding="utf-8"))
    (CONFIGS / "RESULTS.md").write_text(render(results), encoding="utf-8")


if __name__ == "__main__":
    main()
