"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# On two busy cores a tiny detector's step takes 15 ms with one thread and 0.6 s with two.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Counts that take an hour are asked for by name."""
    parser.addoption("--full", action="store_true", help="the tests of reliability at their full length")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the full length is asked for."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the checkout, and none depends on the folder it is started in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTOR_DATASETS", raising=False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and known answers, which is not part of the project."""
    folder = os.environ.get("DETECTOR_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DETECTOR_SHARED is not set: real data and known answers are not at hand")
    return Path(folder)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's folder of downloads, empty, with the network cut off."""

    def download(url: str, *_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = tmp_path / "torch" / "hub" / "checkpoints"
    path.mkdir(parents=True)
    return path
