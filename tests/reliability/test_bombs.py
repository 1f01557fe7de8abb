"""Small files that would take all memory or all time: each is refused in a line by a process with little of both.

Where what such a file describes is harmless after all, it may be read instead; then as fast and in as little memory.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import resource
import signal
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config.load import dump_config, load_config, parse_config
from detector.data.coco import open_coco, read_coco_annotations
from detector.data.images import read_image, read_reduced, read_size
from detector.data.voc import open_voc
from detector.engine.setup import load_model
from detector.errors import DetectorError
from detector.evaluation.results_file import read_results
from detector.models import resnet
from tests.fuzz.cases import faults_of_message
from tests.fuzz.pickles import Run, doubling_key, nested_key
from tests.reliability.runs import NARROW
from tests.tiny import TINY, tiny_config, tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and time as Linux has them")

MEMORY = 2**30
SECONDS = 10
MAX_PIXELS = 64_000_000


def outcome(read: Callable[[], object]) -> str:
    """What a reader says in a process of little memory and time: "accepted", the message of a refusal, or worse."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, of which none is at work
        child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout has its own
            signal.alarm(SECONDS)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
            logging.getLogger("detector").setLevel(logging.CRITICAL)
            read()
            answer = "accepted"
        except DetectorError as error:
            answer = str(error)
        except BaseException as error:
            answer = f"{type(error).__name__} instead of a refusal: {str(error)[:200]}"
        os.write(writing, answer.encode(errors="replace")[:60_000])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return answer if status == 0 else f"the process ended: {signal.Signals(-status).name}"


def refusal(read: Callable[[], object], folder: Path) -> str:
    """The message of a proper refusal that names a file within a folder."""
    message = outcome(read)
    assert not faults_of_message(message, [str(folder), f"'{folder}"]), message
    return message


# Images


def png(width: int, height: int, pixels: bytes | None = None, extra: bytes = b"") -> bytes:
    """Black, of one bit a pixel."""
    row = b"\0" * (1 + (width + 7) // 8)
    deflate = zlib.compressobj(9)
    body = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush() if pixels is None else pixels
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytearray:
    """An image of 16 x 16."""
    buffer = io.BytesIO()
    Image.new(mode, (16, 16)).save(buffer, kind, **options)
    return bytearray(buffer.getvalue())


def with_numbers(data: bytearray, *numbers: tuple[str, int, int]) -> bytes:
    """The file with numbers put in, each as (format, place, value)."""
    for kind, place, value in numbers:
        struct.pack_into(kind, data, place, value)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    data = encoded("WEBP", lossless=True)
    place = data.index(b"VP8L") + 9
    kept = struct.unpack_from("<I", data, place)[0] >> 28 << 28
    return with_numbers(data, ("<I", place, kept | (height - 1) << 14 | (width - 1)))


def tiff(width: int, height: int) -> bytes:
    data = encoded("TIFF", "L")
    start = struct.unpack_from("<I", data, 4)[0]
    tags = {struct.unpack_from("<H", data, start + 2 + 12 * row)[0]: start + 2 + 12 * row for row in range(9)}
    for tag, value in ((256, width), (257, height)):
        struct.pack_into("<HHII", data, tags[tag], tag, 4, 1, value)
    return bytes(data)


def jpeg_of_many_scans(scans: int) -> bytes:
    """A gray progressive JPEG of 62 megapixels; each scan says in 91 bytes that nothing changes anywhere."""
    data = encoded("JPEG", "L", progressive=True)
    frame = data.index(b"\xff\xc2")
    struct.pack_into(">HH", data, frame + 5, 7900, 7900)
    head = bytes(data[: data.index(b"\xff\xda")])
    blocks = (-(-7900 // 8)) ** 2
    one_code = bytes([1] + [0] * 15)
    tables = b"\xff\xc4\x00\x14\x00" + one_code + b"\x00" + b"\xff\xc4\x00\x14\x10" + one_code + b"\xe0"
    bits = ("0" + "1" * 14) * -(-blocks // (2**15 - 1))
    bits += "1" * (-len(bits) % 8)
    run = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    first = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x01" + b"\0" * (blocks // 8 + 1)
    return head + tables + first + (b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + run) * scans + b"\xff\xd9"


IMAGES: dict[str, Callable[[], bytes]] = {
    "PNG of 81 megapixels": lambda: png(9000, 9000),
    "PNG of 144 megapixels": lambda: png(12000, 12000),
    "PNG of 400 megapixels": lambda: png(20000, 20000),
    "PNG that claims the largest size": lambda: png(2**31 - 1, 2**31 - 1, b""),
    "PNG with a text of 100 MB": lambda: png(8, 8, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 100_000_000))),
    "PNG with a profile of 100 MB": lambda: png(8, 8, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(b"a" * 10**8))),
    "WebP of 268 megapixels": lambda: webp(16383, 16383),
    "GIF of 4000 megapixels": lambda: with_numbers(encoded("GIF", "P"), ("<H", 6, 65535), ("<H", 8, 65535)),
    "GIF whose frame is larger than it": lambda: gif_of_large_frame(),
    "BMP of 400 megapixels": lambda: with_numbers(encoded("BMP"), ("<i", 18, 20000), ("<i", 22, 20000)),
    "BMP of the largest size": lambda: with_numbers(encoded("BMP"), ("<i", 18, 2**31 - 1), ("<i", 22, -(2**31))),
    "TIFF of 400 megapixels": lambda: tiff(20000, 20000),
    "TIFF of the largest size": lambda: tiff(2**32 - 1, 2**32 - 1),
    "PPM of 10000 megapixels": lambda: b"P6 100000 100000 255\n" + b"\0" * 100,
    "PPM of a number without end": lambda: b"P3 " + b"9" * 2_000_000,
    "JPEG of 20000 scans": lambda: jpeg_of_many_scans(20_000),
}


def gif_of_large_frame() -> bytes:
    data = encoded("GIF", "P")
    frame = data.index(b",", 13)
    return with_numbers(data, ("<H", frame + 5, 65535), ("<H", frame + 7, 65535))


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_bomb_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(IMAGES[name]())
    assert path.stat().st_size < 2_500_000
    if "text" in name or "profile" in name:  # what stands beside the pixels may be left unread
        assert outcome(lambda: read_image(path)) == "accepted" or refusal(lambda: read_image(path), tmp_path)
    else:
        refusal(lambda: read_image(path, MAX_PIXELS), tmp_path)
        refusal(lambda: read_reduced(path, MAX_PIXELS, 800), tmp_path)
    answer = outcome(lambda: read_size(path))
    assert answer == "accepted" or not faults_of_message(answer, [str(tmp_path)])


# XML

_ENTITIES = "".join(f'<!ENTITY e{n} "' + f"&e{n - 1};" * 10 + '">' for n in range(1, 10))
XML: dict[str, Callable[[], str]] = {
    "billion laughs": lambda: f'<!DOCTYPE a [<!ENTITY e0 "ha">{_ENTITIES}]><annotation>&e9;</annotation>',
    "quadratic blow-up": lambda: (
        "<!DOCTYPE a [<!ENTITY e '" + "x" * 50_000 + "'>]><annotation>" + "&e;" * 50_000 + "</annotation>"
    ),
    "external entity": lambda: '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>',
    "external DTD": lambda: '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><annotation/>',
    "public DTD": lambda: '<!DOCTYPE a PUBLIC "-//A//B" "file:///dev/zero"><annotation/>',
    "parameter entity": lambda: '<!DOCTYPE a [<!ENTITY % e SYSTEM "file:///dev/zero"> %e;]><annotation/>',
    "depth of 200000": lambda: f"<annotation>{'<a>' * 200_000}{'</a>' * 200_000}</annotation>",
    "depth without an end": lambda: "<annotation>" + "<a>" * 1_000_000,
    "attribute of 20 MB": lambda: f'<annotation a="{"x" * 20_000_000}"/>',
    "attribute of 4 MB": lambda: f'<annotation a="{"x" * 4_000_000}"><object/></annotation>',
    "text of 20 MB": lambda: f"<annotation>{'x' * 20_000_000}</annotation>",
    "a million elements": lambda: f"<annotation>{'<a/>' * 1_000_000}</annotation>",
    "200001 elements": lambda: f"<annotation>{'<a/>' * 200_001}</annotation>",
    "many attributes": lambda: "<annotation" + "".join(f' a{n}=""' for n in range(300_000)) + "><object/></annotation>",
    "comments": lambda: "<annotation>" + "<!---->" * 500_000 + "<object/></annotation>",
}


@pytest.mark.parametrize("name", XML)
def test_an_xml_bomb_is_refused(tmp_path: Path, name: str) -> None:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\n")
    (tmp_path / "Annotations/a.xml").write_text(XML[name]())
    message = refusal(lambda: open_voc(tmp_path, "train", None, False, MAX_PIXELS), tmp_path)
    assert message.startswith(f"{tmp_path}/Annotations/a.xml")
    assert "root:" not in message


def test_nothing_of_an_external_dtd_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def never(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", never)
    test_an_xml_bomb_is_refused(tmp_path, "external DTD")


# YAML


def _laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(lines)


def _merges() -> str:
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    return "\n".join(lines)


YAML: dict[str, Callable[[], str]] = {
    "aliases": _laughs,
    "101 aliases": lambda: "a: &a x\nb: [" + ", ".join(["*a"] * 101) + "]",
    "alias inside itself": lambda: "data: &a {train: [*a]}",
    "alias inside itself, twice": lambda: "a: &a\n  b: &b [*a, *b]",
    "depth in brackets": lambda: "a: " + "[" * 400_000,
    "depth in lines": lambda: "\n".join(" " * n + "a:" for n in range(1200)),
    "depth in dashes": lambda: "- " * 400_000,
    "object": lambda: "seed: !!python/object/apply:os.system ['touch it_ran']",
    "module": lambda: "seed: !!python/module:os",
    "text of 20 MB": lambda: "output_dir: " + "x" * 20_000_000,
    "text of 1 MB": lambda: "output_dir: " + "x" * 900_000,
    "merged keys": _merges,
    "number of a million digits": lambda: "seed: " + "1" * 900_000,
    "fraction of a million digits": lambda: "seed: 1." + "1" * 900_000,
    "fifty thousand unknown keys": lambda: "\n".join(f"k{n}: 1" for n in range(50_000)),
    "ten thousand unknown keys": lambda: "\n".join(f"k{n}: 1" for n in range(9_000)),
    "ten thousand wrong values": lambda: "data: {classes: [" + ", ".join(["''"] * 9_000) + "]}",
    "key of 900 KB": lambda: "? " + "k" * 900_000 + "\n: 1",
    "anchors of any number": lambda: "model: {anchors: {sizes: [" + ", ".join(["32"] * 9_000) + "]}}",
    "comment of 1 MB": lambda: "x: 1 " + "#" * 900_000,
}


@pytest.mark.parametrize("name", YAML)
def test_a_yaml_bomb_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(YAML[name]())
    refusal(lambda: load_config(path), path)
    message = outcome(lambda: parse_config(YAML[name](), "a.yaml"))
    assert not faults_of_message(message, ["a.yaml"]), message
    assert not (tmp_path / "it_ran").exists()


def test_bases_cannot_multiply_without_end(tmp_path: Path) -> None:
    for level in range(7):
        base = f"[{', '.join([f'{level + 1}.yaml'] * 30)}]" if level < 6 else "[]"
        (tmp_path / f"{level}.yaml").write_text(f"base: {base}\n")
    assert "64 files" in refusal(lambda: load_config(tmp_path / "0.yaml"), tmp_path)


def test_many_keys_over_many_keys_are_merged_in_time(tmp_path: Path) -> None:
    keys = "".join(f"  {n}k: 1\n" for n in range(9_000))
    (tmp_path / "base.yaml").write_text(f"model:\n{keys}")
    (tmp_path / "a.yaml").write_text(f"base: base.yaml\nmodel:\n{keys}")
    refusal(lambda: load_config(tmp_path / "a.yaml"), tmp_path)


def test_a_configuration_that_leads_in_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    refusal(lambda: load_config(tmp_path / "a.yaml"), tmp_path)


# JSON

_START = '{"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}], "annotations": '
_KEYS = ", ".join(f'"k{n}": 0' for n in [*range(300_000), 9])
JSON: dict[str, Callable[[], bytes]] = {
    "depth": lambda: b"[" * 5_000_000,
    "depth in objects": lambda: b'{"a":' * 1_000_000,
    "depth within a record": lambda: (_START + '[{"bbox": ' + "[" * 1_000_000).encode(),
    "closed depth": lambda: (_START + "[" * 100_000 + "]" * 100_000 + "}").encode(),
    "10 to the 400": lambda: (
        _START + f'[{{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, {10**400}]}}]}}'
    ).encode(),
    "number of 5000 digits": lambda: (_START + '[{"image_id": ' + "1" * 5000 + "}]}").encode(),
    "number of 5 million digits": lambda: (_START + '[{"image_id": ' + "1" * 5_000_000 + "}]}").encode(),
    "NaN": lambda: (_START + '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, NaN, 1]}]}').encode(),
    "infinity": lambda: (_START + '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1e999, 1]}]}').encode(),
    "UTF-16": lambda: (_START + "[]}").encode("utf-16"),
    "NUL": lambda: (_START + "[]}").encode() + b"\0",
    "a key twice after 300000 others": lambda: f"{{{_KEYS}}}".encode(),
    "a record with that": lambda: (
        _START + '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "x": {'
        + _KEYS + '}, "iscrowd": 5}]}'
    ).encode(),
    "a text of 50 MB": lambda: (_START + '"' + "x" * 50_000_000 + '"}').encode(),
    "100000 categories and one twice": lambda: json.dumps(
        {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [],
         "categories": [{"id": n, "name": f"class {n % 99_999}"} for n in range(100_000)]}
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", JSON)
def test_a_json_bomb_is_refused(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    path = tmp_path / "a.json"
    path.write_bytes(JSON[name]())
    refusal(lambda: open_coco(tmp_path, path, None, False, MAX_PIXELS), path)
    refusal(lambda: read_coco_annotations(path), path)


@pytest.mark.parametrize("name", [name for name in JSON if name != "100000 categories and one twice"])
def test_a_json_bomb_for_detections_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "truth.json").write_text(_START + "[]}")
    truth = read_coco_annotations(tmp_path / "truth.json")
    (tmp_path / "a.json").write_bytes(JSON[name]())
    refusal(lambda: read_results(tmp_path / "a.json", truth), tmp_path / "a.json")


def test_detections_of_many_undeclared_categories_are_read_in_time(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(_START + "[]}")
    truth = read_coco_annotations(tmp_path / "truth.json")
    records = [{"image_id": 1, "category_id": n + 10, "bbox": [0, 0, 1, 1], "score": 0.5} for n in range(200_000)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    assert outcome(lambda: read_results(tmp_path / "a.json", truth)) == "accepted"


def test_boxes_that_all_reach_over_the_edge_are_read_in_time(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    for n in range(1, 3000):
        os.link(tmp_path / "0.png", tmp_path / f"{n}.png")
    images = [{"id": n, "file_name": f"{n}.png", "height": 32, "width": 32} for n in range(3000)]
    annotations = [{"image_id": n % 3000, "category_id": 1, "bbox": [0, 0, 99, 99]} for n in range(60_000)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert outcome(lambda: open_coco(tmp_path, tmp_path / "a.json", None, False, MAX_PIXELS)) == "accepted"


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    places = [tmp_path / name for name in ("a.json", "a.yaml", "a.bin", "ImageSets/Main/b.txt", "Annotations/a.xml")]
    for place in places:
        if kind == "pipe":
            os.mkfifo(place)
        else:
            place.symlink_to("/dev/zero" if kind == "link to a device" else "/dev/stdin")
    (tmp_path / "ImageSets/Main/a.txt").write_text("a\n")
    readers: list[Callable[[], object]] = [
        lambda: read_coco_annotations(tmp_path / "a.json"),
        lambda: load_config(tmp_path / "a.yaml"),
        lambda: load_model(tmp_path / "a.bin"),
        lambda: open_voc(tmp_path, "a", None, False, MAX_PIXELS),
        lambda: open_voc(tmp_path, "b", None, False, MAX_PIXELS),
        lambda: read_image(tmp_path / "a.bin"),
    ]
    for reader in readers:
        refusal(reader, tmp_path)


# Weights


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of very few channels."""
    monkeypatch.setattr(resnet, "_WIDTHS", NARROW)


def metadata(**changes: str) -> dict[str, str]:
    """Those of a network of the tiny configuration."""
    names = [f"class {n}" for n in range(6)]
    return {
        "format": "detector-weights-1", "config": dump_config(tiny_config()), "class_names": json.dumps(names),
        "category_ids": "[1, 2, 3, 4, 5, 6]", "iteration": "1", "score_threshold": "null", **changes,
    }  # fmt: skip


def safetensors(header: dict[str, object], body: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def own_file(changes: dict[str, str]) -> bytes:
    import safetensors.torch

    return safetensors.torch.save(dict(tiny_model().state_dict()), metadata(**changes))


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def saved_members() -> dict[str, bytes]:
    """What ``torch.save`` puts into its archive for four numbers."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(4.0)}, buffer)
    with zipfile.ZipFile(buffer) as file:
        return {name.split("/", 1)[1]: file.read(name) for name in file.namelist()}


def lying_directory(size: int) -> bytes:
    """An archive whose directory gives a member far more bytes than it has."""
    data = bytearray(archive(saved_members()))
    place = data.index(b"PK\x01\x02", data.index(b"archive/data/0"))
    while data[place + 46 : place + 46 + len(b"archive/data/0")] != b"archive/data/0":
        place = data.index(b"PK\x01\x02", place + 1)
    struct.pack_into("<II", data, place + 20, size, size)
    return bytes(data)


def program(changes: dict[bytes, bytes]) -> dict[str, bytes]:
    """The members with the pickle's bytes changed."""
    members = saved_members()
    for old, new in changes.items():
        assert old in members["data.pkl"]
        members["data.pkl"] = members["data.pkl"].replace(old, new)
    return members


_HUGE = b"J\x00\x00\x00\x70"
_ONE = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
WEIGHTS: dict[str, Callable[[], bytes]] = {
    "deflated archive": lambda: archive({"data.pkl": b"\x80\x02}.", "data/0": b"\0" * 500_000_000},
    zipfile.ZIP_DEFLATED),
    "directory that lies": lambda: lying_directory(2_000_000_000),
    "storage larger than its bytes": lambda: archive(program({b"K\x04tq": _HUGE + b"tq"})),
    "view larger than its storage": lambda: archive(program({b"K\x04\x85q": _HUGE + b"\x85q"})),
    "program beside archive": lambda: archive({"data.pkl": pickle.dumps(Run("touch it_ran"), 2), "version": b"3\n"}),
    "program in torch's old format": lambda: old_format(pickle.dumps(Run("touch it_ran"), 2)),
    "program in a pickle": lambda: pickle.dumps({"model": Run("touch it_ran")}),
    "program in a .pkl of numpy": lambda: pickle.dumps({"a": np.zeros(3, "f4"), "b": Run("touch it_ran")}, 4),
    "tuples in tuples in a pickle": lambda: nested_key(1_000_000),
    "tuples in tuples in an archive": lambda: archive({"data.pkl": nested_key(1_000_000), "version": b"3\n"}),
    "tuples in tuples in the old format": lambda: old_format(nested_key(1_000_000)),
    "doubled tuples in a pickle": lambda: doubling_key(60),
    "doubled tuples in an archive": lambda: archive({"data.pkl": doubling_key(60), "version": b"3\n"}),
    "doubled tuples in capitals": lambda: archive({"DATA.PKL": doubling_key(60), "version": b"3\n"}),
    "commands without end": lambda: b"\x80\x04]" + b"]0" * 2_000_000 + b".",
    "text of a pickle that is not there": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x",
    "number of a million digits": lambda: pickle.dumps({10**4_000: np.zeros(3, "f4")}) + b"\0" * 50,
    "repeated number": lambda: saved({"a": torch.zeros(1).expand(10**6, 10**6, 10**6)}),
    "tensor without contents": lambda: saved({"a": torch.zeros(10**6, 10**6, device="meta")}),
    "header of 8 exabytes": lambda: safetensors({}, length=2**63),
    "header of 100 MB": lambda: safetensors({}, b" " * 1000, length=100_000_000),
    "deep header": lambda: struct.pack("<Q", 1_000_000) + b"[" * 1_000_000,
    "offsets beyond the file": lambda: safetensors({"a": _ONE | {"data_offsets": [0, 2**40], "shape": [2**38]}},
    b"\0" * 16),
    "offsets that overlap": lambda: safetensors({"a": _ONE, "b": _ONE}, b"\0" * 16),
    "offsets the wrong way": lambda: safetensors({"a": _ONE | {"data_offsets": [16, 0]}}, b"\0" * 16),
    "shape that overflows": lambda: safetensors({"a": _ONE | {"shape": [2**62, 2**62, 4]}}, b"\0" * 16),
    "configuration of laughs": lambda: own_file({"config": _laughs()}),
    "configuration of 20 MB": lambda: own_file({"config": "#" * 20_000_000}),
    "configuration with a program": lambda: own_file({"config": YAML["object"]()}),
    "configuration of a giant": lambda: own_file({"config": TINY.replace("[16, 32]", str([16] * 10_000))}),
    "classes without end": lambda: own_file(
        {"class_names": json.dumps([f"class {n}" for n in range(400_000)]),
        "category_ids": json.dumps([*range(400_000)])}
    ),
    "deep class names": lambda: own_file({"class_names": "[" * 1_000_000}),
    "number of a file's iteration": lambda: own_file({"iteration": "9" * 1_000_000}),
}  # fmt: skip


# What a pickle of numpy says of an array of one byte a number, and of the empty one that it begins as.
_EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
_BYTE = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array(length: int, content: bytes) -> bytes:
    """The commands that make an array of bytes."""
    return _EMPTY + b"(K\x01" + number(length) + b"\x85" + _BYTE + b"\x89" + content + b"tb"


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def again(first: bytes, use: bytes, times: int) -> bytes:
    """A pickle of a list with something, and with what is made of it, again and again."""
    return b"\x80\x02](" + first + b"q\x01" + use * times + b"e."


def text(letters: int) -> bytes:
    return b"X" + struct.pack("<I", letters) + b"a" * letters


_MILLION = text(1_000_000)
_PAIRS = b"](" + b"".join(number(n) + b"N\x86" for n in range(100_000)) + b"e"
_ATTRIBUTES = b"}(" + b"".join(b"X\x06\0\0\0%06dN" % n for n in range(100_000)) + b"u"
_ORDERED = b"ccollections\nOrderedDict\n"
PICKLES: dict[str, bytes] = {
    "memo of 40 million": b"\x80\x02}r" + struct.pack("<I", 40_000_000) + b".",
    "memo of 40 million in digits": b"\x80\x02}p40000000\n.",
    "memo of 40 million that is read": b"\x80\x02j" + struct.pack("<I", 40_000_000) + b".",
    "memo of a million": b"\x80\x04}" + b"\x94" * 990_000 + b".",
    "a million sets": b"\x80\x04(" + b"\x8f" * 990_000 + b"l.",
    "frame of 8 GB": b"\x80\x04\x95" + struct.pack("<Q", 2**33) + b"}.",
    "bytes of 8 GB": b"\x80\x05\x8e" + struct.pack("<Q", 2**33) + b"x.",
    "bytearray of 8 GB": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"x.",
    "number of 2 GB": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "array whose content is a length": b"\x80\x02}X\x01\0\0\0a" + array(4 * 10**8, number(4 * 10**8)) + b"s.",
    "arrays of one content": again(_MILLION, array(1_000_000, b"h\x01"), 500),
    "bytes of one text": again(_MILLION, b"c_codecs\nencode\nh\x01\x85R", 500),
    "dictionaries of one list": again(_PAIRS, _ORDERED + b"h\x01\x85R", 100),
    "attributes of one dictionary": again(_ATTRIBUTES, _ORDERED + b")Rh\x01b", 100),
    "function that calls itself": b"\x80\x02}cnumpy\ndtype\nq\x01(h\x01)}NtbNsh\x01)R.",
    "bytearray in an archive": archive(
        {"data.pkl": b"\x80\x02}cbuiltins\nbytearray\n" + number(10**9) + b"\x85RNs.", "version": b"3\n"}
    ),
    "old bytearray in an archive": archive(
        {"data.pkl": b"\x80\x02}c__builtin__\nbytearray\n" + number(10**9) + b"\x85RNs.", "version": b"3\n"}
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_small_pickle_takes_no_more_than_100_mb(tmp_path: Path, name: str) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(PICKLES[name])

    def read() -> None:
        before = resident("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        except OSError:
            pytest.skip("this machine does not tell the peak of a part of a process")
        try:
            load_model(path)
        finally:
            assert resident("VmHWM") - before < 100_000, f"{resident('VmHWM') - before} KB"

    refusal(read, path)


def resident(which: str) -> int:
    """Memory in KB: now, or at its peak."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(which))


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def old_format(main: bytes) -> bytes:
    """A file as torch wrote it before 1.6, with a pickle in place of the tensors'."""
    start = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    return start + pickle.dumps({"little_endian": True}, 2) + main + pickle.dumps([], 2)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", WEIGHTS)
def test_a_bomb_of_weights_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(WEIGHTS[name]())
    refusal(lambda: load_model(path), path)
    assert not (tmp_path / "it_ran").exists()
    assert not Path("it_ran").exists()


@pytest.mark.usefixtures("narrow")
def test_the_file_that_the_bombs_are_made_from_is_sound(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(own_file({}))
    assert outcome(lambda: load_model(tmp_path / "weights.bin")) == "accepted"


# The judge itself


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        (lambda: bytearray(3 * MEMORY), "MemoryError instead of a refusal"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "the process ended: SIGSEGV"),
        (lambda: dict[str, int]()["x"], "KeyError instead of a refusal"),
    ],
)
def test_what_is_worse_than_a_refusal_is_seen(what: Callable[[], object], answer: str) -> None:
    assert outcome(what).startswith(answer)


def test_what_takes_too_long_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", 1)
    assert outcome(lambda: time.sleep(5)) == "the process ended: SIGALRM"
