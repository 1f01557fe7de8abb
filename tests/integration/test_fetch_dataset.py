"""Fetching public data sets, from a server on this machine that holds tiny archives and misbehaves on demand."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from detector.cli.entry import run
from detector.cli.fetch_dataset import _default_root, fetch_and_check
from detector.data.fetching import download, unpack
from detector.data.fetching.archives import PUBLIC_SETS, PublicSet
from detector.data.fetching.disk import held
from detector.durable import make_folders, rename

LARGE = 700_000
MAX_LINE = 400


@dataclass
class Site:
    """What the server holds and does.

    Attributes:
        files: content by path.
        knows_range: it can resume.
        statuses: HTTP errors that it answers first, one a request.
        cuts: after so many bytes it hangs up, one a request.
        location: where it sends on to, with 302.
        requests: each path asked for, with its Range.
        sent: bytes of content sent.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    knows_range: bool = True
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    location: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        asked = self.headers.get("Range", "")
        site.requests.append((self.path, asked))
        content = site.files.get(self.path.strip("/"))
        if site.location:
            self.send_response(302)
            self.send_header("Location", site.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif site.statuses or content is None:
            self.send_error(site.statuses.pop(0) if site.statuses else 404)
        else:
            self._send(site, content, asked)

    def do_CONNECT(self) -> None:
        self.server.site.requests.append((self.path, "CONNECT"))  # type: ignore[attr-defined]
        self.send_error(403)

    def _send(self, site: Site, content: bytes, asked: str) -> None:
        resumed = re.fullmatch(r"bytes=(\d+)-", asked) if site.knows_range else None
        start = int(resumed[1]) if resumed else 0
        self.send_response(206 if resumed else 200)
        if resumed:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        body = body[: site.cuts.pop(0)] if site.cuts else body
        site.sent += len(body)
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server, and no proxy or patience in the way."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(os, "sync", lambda: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    site = Site(url=f"http://127.0.0.1:{server.server_port}")
    server.site = site  # type: ignore[attr-defined]
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tape:
        for name, content in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tape.addfile(item, io.BytesIO(content))
    return buffer.getvalue()


def coco_files() -> dict[str, bytes]:
    """The three archives: two training images with three objects, one of validation with one."""
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]

    def instances(prefix: str, images: int, objects: int) -> bytes:
        content = {
            "images": [{"id": n, "file_name": f"{prefix}{n}.jpg", "height": 40, "width": 60} for n in range(images)],
            "annotations": [
                {"id": n + 1, "image_id": n % images, "category_id": 3, "bbox": [1, 2, 3 + n, 4]}
                for n in range(objects)
            ],
            "categories": categories,
        }
        return json.dumps(content).encode()

    noise = hashlib.shake_256(b"image").digest(LARGE)
    return {
        "annotations_trainval2017.zip": zip_of(
            {
                "annotations/instances_train2017.json": instances("t", 2, 3),
                "annotations/instances_val2017.json": instances("v", 1, 1),
            }
        ),
        "val2017.zip": zip_of({"val2017/": b"", "val2017/v0.jpg": noise[:500]}),
        "train2017.zip": zip_of({"train2017/": b"", "train2017/t0.jpg": noise, "train2017/t1.jpg": b"1"}),
    }


def voc_files() -> dict[str, bytes]:
    """The three archives, of one image and object each."""

    def devkit(year: int, split: str, image: str) -> bytes:
        box = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
        xml = f"<annotation><object><name>dog</name><bndbox>{box}</bndbox></object></annotation>"
        top = f"VOCdevkit/VOC{year}"
        return tar_of(
            {
                f"{top}/Annotations/{image}.xml": xml.encode(),
                f"{top}/ImageSets/Main/{split}.txt": f"{image}\n".encode(),
                f"{top}/JPEGImages/{image}.jpg": b"jpeg",
            }
        )

    return {
        "VOCtrainval_06-Nov-2007.tar": devkit(2007, "trainval", "000001"),
        "VOCtest_06-Nov-2007.tar": devkit(2007, "test", "000002"),
        "VOCtrainval_11-May-2012.tar": devkit(2012, "trainval", "2012_000001"),
    }


def sets_of(site: Site, files: Mapping[str, bytes]) -> dict[str, PublicSet]:
    """The published tables for these archives, which the server holds from now on."""
    site.files |= files

    def small(public_set: PublicSet) -> PublicSet:
        archives = [
            replace(
                archive,
                urls=(f"{site.url}/{archive.name}",),
                size=len(files[archive.name]),
                sha256=hashlib.sha256(files[archive.name]).hexdigest(),
                unpacked=max(len(files[archive.name]), 1000),
            )
            for archive in public_set.archives
            if archive.name in files
        ]
        return replace(public_set, archives=tuple(archives))

    return {name: small(public_set) for name, public_set in PUBLIC_SETS.items()}


class Outcome(NamedTuple):
    """Of one call."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The only error line."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(line) <= MAX_LINE
        return line


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command with a table of archives, into ``root`` of the working directory."""

    def run_command(sets: Mapping[str, PublicSet], name: str = "coco2017", *more: str) -> Outcome:
        command = functools.partial(fetch_and_check, sets=sets)
        code = run(command, [name, "--root", "root", *more])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Outcome(code, out, err)

    return run_command


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# The whole road.


def test_coco_is_fetched_unpacked_and_opened(site: Site, call: Call) -> None:
    outcome = call(sets_of(site, coco_files()))
    assert outcome.code == 0, outcome.err
    assert [line.split() for line in outcome.out.splitlines() if not line.startswith("  anchors cover")] == [
        ["split", "images", "objects", "classes"],
        ["train2017", "2", "3", "2"],
        ["val2017", "1", "1", "2"],
    ]
    assert (Path("root/coco/train2017/t0.jpg")).stat().st_size == LARGE


def test_voc_is_fetched_unpacked_and_opened(site: Site, call: Call) -> None:
    outcome = call(sets_of(site, voc_files()), "voc0712")
    assert outcome.code == 0, outcome.err
    assert [line.split()[:3] for line in outcome.out.splitlines()[1:]] == [
        ["VOC2007", "trainval", "1"],
        ["VOC2007", "test", "1"],
        ["VOC2012", "trainval", "1"],
    ]


def test_archives_are_gone_afterwards(site: Site, call: Call) -> None:
    call(sets_of(site, coco_files()))
    assert not {name for name in tree(Path("root/archives")) if not name.endswith(".state")} - {".lock"}


def test_archives_are_kept_on_demand(site: Site, call: Call) -> None:
    files = coco_files()
    call(sets_of(site, files), "coco2017", "--keep-archives")
    assert {name: (Path("root/archives") / name).read_bytes() for name in files} == files


def test_a_second_call_does_nothing_and_says_so(site: Site, call: Call) -> None:
    sets = sets_of(site, coco_files())
    first = call(sets)
    requests, files = (
        list(site.requests),
        {name: os.stat(Path("root") / name).st_mtime_ns for name in tree(Path("root"))},
    )
    second = call(sets)
    assert "nothing to fetch" in second.err
    assert second.out == first.out
    assert site.requests == requests
    assert {name: os.stat(Path("root") / name).st_mtime_ns for name in tree(Path("root"))} == files


def test_only_the_missing_part_is_fetched(site: Site, call: Call) -> None:
    sets = sets_of(site, coco_files())
    call(sets)
    shutil.rmtree("root/coco/val2017")
    site.requests.clear()
    assert call(sets).code == 0
    assert site.requests == [("/val2017.zip", "")]


def test_images_that_somebody_else_put_there_are_left_alone(site: Site, call: Call) -> None:
    sets = sets_of(site, coco_files())
    mine = Path("root/coco/val2017/v0.jpg")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    outcome = call(sets)
    assert outcome.code == 0
    assert mine.read_bytes() == b"mine"
    assert "val2017: not from this command" in outcome.err


def test_an_archive_put_there_by_hand_is_not_fetched(site: Site, call: Call) -> None:
    files = coco_files()
    sets = sets_of(site, files)
    store = Path("root/archives")
    store.mkdir(parents=True)
    (store / "train2017.zip").write_bytes(files["train2017.zip"])
    assert call(sets).code == 0
    assert "/train2017.zip" not in dict(site.requests)


def test_terms_of_use_are_told(site: Site, call: Call) -> None:
    assert "CC BY 4.0" in call(sets_of(site, coco_files())).err


def test_the_default_root_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DETECTOR_DATASETS", str(tmp_path / "sets"))
    assert _default_root() == tmp_path / "sets"


def test_the_default_root_of_a_checkout_is_its_datasets(root: Path) -> None:
    assert _default_root() == root / "datasets"


def test_an_unknown_data_set_is_refused(site: Site, call: Call) -> None:
    outcome = call(sets_of(site, coco_files()), "imagenet")
    assert outcome.code == 2
    assert "coco2017" in outcome.error


# The published table.


def test_all_addresses_are_https() -> None:
    urls = [url for public_set in PUBLIC_SETS.values() for archive in public_set.archives for url in archive.urls]
    assert all(url.startswith("https://") for url in urls)


def test_all_checksums_are_whole() -> None:
    sums = [archive.sha256 for public_set in PUBLIC_SETS.values() for archive in public_set.archives]
    assert len(set(sums)) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in sums)


# Networks and servers.


def test_a_transfer_that_is_cut_off_goes_on_where_it_stopped(site: Site, call: Call) -> None:
    files = coco_files()
    site.cuts = [10**9, 10**9, 300_000, 200_000]
    assert call(sets_of(site, files)).code == 0
    assert [asked for path, asked in site.requests if path == "/train2017.zip"] == [
        "",
        "bytes=300000-",
        "bytes=500000-",
    ]
    assert site.sent == sum(map(len, files.values()))


def test_a_transfer_is_taken_up_by_the_next_call(site: Site, call: Call) -> None:
    files = coco_files()
    sets = sets_of(site, files)
    site.cuts = [10**9, 10**9, 400_000, *[0] * 10]
    first = call(sets)
    assert first.code == 3
    assert "cut off after 400000 of" in first.error
    assert Path("root/archives/train2017.zip.part").stat().st_size == 400_000
    site.cuts = []
    assert call(sets).code == 0
    assert site.requests[-1] == ("/train2017.zip", "bytes=400000-")
    assert site.sent == sum(map(len, files.values()))


def test_a_server_that_cannot_resume_starts_over(site: Site, call: Call) -> None:
    site.knows_range = False
    site.cuts = [10**9, 10**9, 300_000]
    outcome = call(sets_of(site, coco_files()))
    assert outcome.code == 0
    assert "the server cannot resume" in outcome.err
    assert Path("root/coco/train2017/t0.jpg").stat().st_size == LARGE


def test_a_server_that_never_comes_to_an_end_is_given_up(site: Site, call: Call) -> None:
    site.knows_range = False
    site.cuts = [10**9, 10**9, *[300_000] * 50]
    assert call(sets_of(site, coco_files())).code == 3
    assert len(site.requests) == 2 + 5


def test_a_part_that_is_too_long_is_fetched_anew(site: Site, call: Call) -> None:
    part = Path("root/archives/val2017.zip.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * LARGE)
    assert call(sets_of(site, coco_files())).code == 0


def test_a_file_of_another_length_is_not_fetched(site: Site, call: Call) -> None:
    sets = sets_of(site, coco_files())
    site.files["val2017.zip"] = b"<html>please log in</html>"
    outcome = call(sets)
    assert outcome.code == 3
    assert "sends 26 bytes instead of" in outcome.error
    assert not Path("root/archives/val2017.zip.part").exists()


def test_what_is_missing_of_another_file_is_not_fetched(site: Site, call: Call) -> None:
    sets = sets_of(site, coco_files())
    site.files["val2017.zip"] += b"more"
    part = Path("root/archives/val2017.zip.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100)
    assert "has another file" in call(sets).error


def test_the_next_place_is_tried(site: Site, call: Call) -> None:
    sets = sets_of(site, coco_files())
    coco = sets["coco2017"]
    archives = [replace(archive, urls=(f"{site.url}/gone", *archive.urls)) for archive in coco.archives]
    assert call({"coco2017": replace(coco, archives=tuple(archives))}).code == 0


def test_404_is_told_at_once(site: Site, call: Call) -> None:
    sets = sets_of(site, coco_files())
    site.files.clear()
    outcome = call(sets)
    assert outcome.code == 3
    assert "annotations_trainval2017.zip: cannot be fetched: 127.0.0.1: HTTP 404" in outcome.error
    assert len(site.requests) == 1


def test_500_is_tried_again(site: Site, call: Call) -> None:
    site.statuses = [500, 503, 429]
    outcome = call(sets_of(site, coco_files()))
    assert outcome.code == 0
    assert "HTTP 500" in outcome.err


def test_500_for_good_is_told(site: Site, call: Call) -> None:
    site.statuses = [500] * 99
    outcome = call(sets_of(site, coco_files()))
    assert outcome.code == 3
    assert "HTTP 500" in outcome.error
    assert len(site.requests) == 5


def test_a_refused_range_starts_over(site: Site, call: Call) -> None:
    part = Path("root/archives/annotations_trainval2017.zip.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 10)
    site.statuses = [416]
    assert call(sets_of(site, coco_files())).code == 0
    assert site.requests[1] == ("/annotations_trainval2017.zip", "")


@pytest.mark.parametrize("location", ["{site}/val2017.zip", "file:///etc/passwd", "ftp://127.0.0.1/x", "https://"])
def test_it_is_only_sent_on_to_https(site: Site, call: Call, location: str) -> None:
    site.location = location.format(site=site.url)
    assert call(sets_of(site, coco_files())).code == 3
    assert len(site.requests) <= 5


def elsewhere(site: Site, url: str) -> dict[str, PublicSet]:
    coco = sets_of(site, coco_files())["coco2017"]
    return {"coco2017": replace(coco, archives=(replace(coco.archives[0], urls=(url,)),))}


@pytest.mark.parametrize("url", ["http://example.com/a.zip", "ftp://127.0.0.1/a.zip", "file:///etc/passwd", "data:,x"])
def test_nothing_but_https_is_asked(site: Site, call: Call, url: str) -> None:
    outcome = call(elsewhere(site, url))
    assert outcome.code == 3
    assert "only https is allowed" in outcome.error


def test_a_server_without_tls_is_told(site: Site, call: Call) -> None:
    outcome = call(elsewhere(site, site.url.replace("http:", "https:")))
    assert outcome.code == 3
    assert "no secure connection" in outcome.error


def test_a_name_that_is_not_known_is_told(site: Site, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    outcome = call(elsewhere(site, "https://nowhere.invalid/a.zip"))
    assert outcome.code == 3
    assert "nowhere.invalid: Name or service not known; see to the network" in outcome.error


def test_a_closed_port_is_told(site: Site, call: Call) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = call(elsewhere(site, f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"))
    assert outcome.code == 3
    assert "Connection refused" in outcome.error


def test_silence_is_told(site: Site, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        outcome = call(elsewhere(site, f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"))
    assert outcome.code == 3
    assert "no answer within" in outcome.error


def test_the_proxy_of_the_environment_is_used(site: Site, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", site.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    outcome = call(elsewhere(site, "https://s3.invalid/a.zip"))
    assert site.requests[0] == ("s3.invalid:443", "CONNECT")
    assert "Tunnel connection failed: 403" in outcome.error


# What arrives.


def test_a_wrong_checksum_is_told_and_the_file_deleted(site: Site, call: Call) -> None:
    files = coco_files()
    sets = sets_of(site, files)
    site.files["val2017.zip"] = bytes(len(files["val2017.zip"]))
    outcome = call(sets)
    assert outcome.code == 2
    assert "val2017.zip: has the sha256" in outcome.error
    assert "try again" in outcome.error
    assert not list(Path("root/archives").glob("val2017.zip*"))
    assert not Path("root/coco/val2017").exists()
    site.files |= files
    assert call(sets).code == 0


def one_archive(site: Site, name: str, content: bytes) -> dict[str, PublicSet]:
    """A data set of one archive, hostile, but with the right checksum."""
    return sets_of(site, {name: content})


def test_a_zip_that_leaves_its_folder_is_refused(site: Site, call: Call) -> None:
    outcome = call(one_archive(site, "train2017.zip", zip_of({"train2017/a": b"", "train2017/../../../evil": b""})))
    assert outcome.code == 2
    assert "leaves its folder; nothing was unpacked" in outcome.error
    assert not Path("root/coco").exists()
    assert not list(Path("..").rglob("evil"))


def test_a_tar_that_leaves_its_folder_is_refused(site: Site, call: Call) -> None:
    content = tar_of({"VOCdevkit/a": b"", "VOCdevkit/../../evil": b""})
    outcome = call(one_archive(site, "VOCtest_06-Nov-2007.tar", content), "voc0712")
    assert outcome.code == 2
    assert "leaves its folder; nothing was unpacked" in outcome.error
    assert not Path("root/VOCdevkit").exists()
    assert not list(Path("..").rglob("evil"))


def test_an_archive_of_far_more_than_expected_is_refused(site: Site, call: Call) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("train2017/bomb", bytes(2_000_000))
    outcome = call(one_archive(site, "train2017.zip", buffer.getvalue()))
    assert outcome.code == 2
    assert "claims to hold 1 files of 2.00MB" in outcome.error
    assert not Path("root/coco").exists()


# Disks and interruptions.


def shrink(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage(".")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    site: Site, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, 500_000)
    outcome = call(sets_of(site, coco_files()))
    assert outcome.code == 3
    assert "1.40MB are needed" in outcome.error
    assert "903kB are missing" in outcome.error
    assert site.requests == []


def test_what_is_there_needs_no_room(site: Site, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    files = coco_files()
    sets = sets_of(site, files)
    site.cuts = [10**9, 10**9, 600_000, *[0] * 10]
    call(sets)
    site.cuts = []
    shrink(monkeypatch, 850_000)
    assert call(sets).code == 0


def test_a_full_disk_is_told_with_the_file(site: Site, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = sets_of(site, coco_files())
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 1000 or data[:2] == b"PK":
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    outcome = call(sets)
    assert outcome.code == 3
    assert "annotations_trainval2017.zip.part: no space left on the disk" in outcome.error


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written_is_told(site: Site, call: Call) -> None:
    Path("root").mkdir(mode=0o500)
    outcome = call(sets_of(site, coco_files()))
    assert outcome.code == 3
    assert "Permission denied" in outcome.error


def test_a_file_as_root_is_told(site: Site, call: Call) -> None:
    Path("root").write_text("")
    assert call(sets_of(site, coco_files())).code == 3


def test_a_second_call_into_the_same_folder_is_refused(site: Site, call: Call) -> None:
    make_folders(Path("root/archives"))
    with held(Path("root/archives/.lock")):
        outcome = call(sets_of(site, coco_files()))
    assert outcome.code == 3
    assert "another call of this command is at work here" in outcome.error
    assert site.requests == []
    assert call(sets_of(site, coco_files())).code == 0


def test_unpacking_that_was_interrupted_is_finished(site: Site, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = sets_of(site, coco_files())

    def interrupted(old: Path, new: Path) -> None:
        if new.name == "t1.jpg":
            raise KeyboardInterrupt
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(unpack, "rename", interrupted)
        assert call(sets).code == 130
    assert Path("root/coco/train2017/t0.jpg").exists()
    requests = len(site.requests)
    assert call(sets).code == 0
    assert len(site.requests) == requests
    assert tree(Path("root/coco/train2017")) == {"t0.jpg", "t1.jpg"}


_KILLED = """
import json, os, signal, sys
from pathlib import Path
from detector.data.fetching import unpack
from detector.data.fetching.archives import Archive, PublicSet
from detector.data.fetching.fetch import fetch

rename = unpack.rename
def killed(old, new):
    if new.name == "t1.jpg":
        os.kill(os.getpid(), signal.SIGKILL)
    rename(old, new)
unpack.rename = killed
archives = tuple(Archive(**facts) for facts in json.loads(sys.argv[1]))
fetch(PublicSet(archives, terms=""), Path("root"), keep_archives=False)
"""


def test_a_call_killed_between_two_files_is_finished_by_the_next(site: Site, call: Call) -> None:
    sets = sets_of(site, coco_files())
    table = json.dumps([asdict(archive) for archive in sets["coco2017"].archives])
    child = subprocess.run([sys.executable, "-c", _KILLED, table], capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL
    assert tree(Path("root/coco/train2017")) == {"t0.jpg", ".fetch_dataset.tmp"}
    requests = len(site.requests)
    outcome = call(sets)
    assert outcome.code == 0
    assert len(site.requests) == requests
    assert tree(Path("root/coco/train2017")) == {"t0.jpg", "t1.jpg"}


def test_a_file_emptied_by_a_power_failure_is_unpacked_again(
    site: Site, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = sets_of(site, coco_files())

    def power_failure() -> None:
        Path("root/coco/train2017/t0.jpg").write_bytes(bytes(LARGE))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "sync", lambda: power_failure() if Path("root/coco/train2017").exists() else None)
        assert call(sets).code == 130
    assert call(sets).code == 0
    assert any(Path("root/coco/train2017/t0.jpg").read_bytes())
