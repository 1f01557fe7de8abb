"""Hostile and damaged archives: refused in a line, with nothing written outside the folder."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.data.fetching.unpack import unpack
from detector.errors import DatasetError

LIMIT = 100_000
HOSTILE_NAMES = {
    "upwards": "top/../../../evil",
    "upwards at the end": "top/..",
    "absolute": "/evil",
    "drive": "C:/evil",
    "stream": "top/a:b",
    "backslash": "top\\..\\..\\evil",
    "share": "\\\\host\\share\\evil",
    "doubled slash": "top//evil",
    "dot": "./top/evil",
    "beside": "evil",
    "elsewhere": "other/evil",
    "newline": "top/a\nb",
    "escape": "top/\x1b[2J",
}


def write_zip(names: Sequence[str], content: bytes = b"content", mode: int = 0) -> Path:
    path = Path("hostile.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in names:
            item = zipfile.ZipInfo("placeholder")
            item.filename = name  # the constructor would mend it
            item.external_attr = mode << 16
            bundle.writestr(item, content, zipfile.ZIP_DEFLATED)
    return path


def write_tar(names: Sequence[str], kind: bytes = tarfile.REGTYPE) -> Path:
    path = Path("hostile.tar")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tape:
        for name in names:
            item = tarfile.TarInfo(name)
            item.type = kind
            item.linkname = "/etc/passwd"
            item.size = len(b"content") if kind == tarfile.REGTYPE else 0
            tape.addfile(item, io.BytesIO(b"content"))
    return path


def refusal_of(archive: Path) -> str:
    """Why an archive is refused, with not a single file written."""
    before = set(Path().rglob("*"))
    with pytest.raises(DatasetError) as refused:
        unpack(archive, Path("folder"), "top", LIMIT)
    assert set(Path().rglob("*")) == before
    message = str(refused.value)
    assert message.startswith(f"{archive}: ")
    assert message.isprintable()
    return message


def test_a_zip_is_unpacked() -> None:
    assert unpack(write_zip(["top/", "top/a", "top/b/c"]), Path("folder"), "top", LIMIT) == 2
    assert Path("folder/top/b/c").read_bytes() == b"content"


def test_a_tar_is_unpacked() -> None:
    assert unpack(write_tar(["top/a", "top/b/c"]), Path("folder"), "top", LIMIT) == 2
    assert Path("folder/top/b/c").read_bytes() == b"content"


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_a_zip_with_a_hostile_name_is_refused(name: str) -> None:
    assert "nothing was unpacked" in refusal_of(write_zip(["top/good", name]))


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_a_tar_with_a_hostile_name_is_refused(name: str) -> None:
    assert "nothing was unpacked" in refusal_of(write_tar(["top/good", name]))


def test_a_zip_with_nul_in_a_name_is_refused() -> None:
    archive = write_zip(["top/aXb"])
    archive.write_bytes(archive.read_bytes().replace(b"top/aXb", b"top/a\0b"))
    assert "'top/a\\x00b'" in refusal_of(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_with_a_link_or_device_is_refused(kind: int) -> None:
    assert "is a link or a device" in refusal_of(write_zip(["top/x"], mode=kind | 0o777))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_a_link_or_device_is_refused(kind: bytes) -> None:
    assert "is a link or a device" in refusal_of(write_tar(["top/x"], kind))


@pytest.mark.parametrize("names", [["top/a", "top/a"], ["top/a", "top/A"], ["top/a", "top/a/b"], ["top/a/b", "top/A"]])
def test_names_that_meet_are_refused(names: Sequence[str]) -> None:
    assert "is there twice" in refusal_of(write_tar(names))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_name_twice_is_refused() -> None:
    assert "is there twice" in refusal_of(write_zip(["top/a", "top/a"]))


def test_a_compressed_tar_is_refused() -> None:
    with tarfile.open("packed.tar", "w:gz"):
        pass
    assert "cannot be unpacked" in refusal_of(Path("packed.tar"))


def test_a_file_that_is_no_zip_is_refused() -> None:
    Path("no.zip").write_bytes(b"no zip")
    assert "cannot be unpacked" in refusal_of(Path("no.zip"))


def test_a_zip_that_points_before_its_beginning_is_told() -> None:
    archive = write_zip(["top/a"])
    content = bytearray(archive.read_bytes())
    start = content.index(b"PK\x05\x06") + 16  # where the file says that its directory lies
    content[start : start + 4] = (10_000).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpack(archive, Path("folder"), "top", LIMIT)


def test_a_zip_that_wants_a_password_is_refused() -> None:
    archive = write_zip(["top/a"])
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    archive.write_bytes(content)
    assert "wants a password" in refusal_of(archive)


def test_a_bomb_is_refused() -> None:
    assert "claims to hold 1 files of 10.0MB" in refusal_of(write_zip(["top/bomb"], bytes(10_000_000)))


def test_many_members_that_are_a_bomb_together_are_refused() -> None:
    names = [f"top/{number}" for number in range(11)]
    assert "claims to hold 11 files" in refusal_of(write_zip(names, bytes(LIMIT // 10)))


def test_a_bomb_that_claims_to_be_small_writes_no_more_than_it_claims() -> None:
    archive = write_zip(["top/bomb"], bytes(10_000_000))
    claim = (1000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace((10_000_000).to_bytes(4, "little"), claim))
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpack(archive, Path("folder"), "top", LIMIT)
    assert sum(path.stat().st_size for path in Path("folder").rglob("*") if path.is_file()) <= 1000


def test_a_damaged_member_is_told() -> None:
    archive = write_zip(["top/a"], bytes(range(256)))
    archive.write_bytes(archive.read_bytes().replace(bytes(range(100, 106)), b"damage"))
    with pytest.raises(DatasetError, match="cannot be unpacked.*top/a"):
        unpack(archive, Path("folder"), "top", LIMIT)
    assert not Path("folder/top/a").exists()


def test_a_tar_that_is_cut_off_is_told() -> None:
    archive = write_tar(["top/a", "top/b"])
    archive.write_bytes(archive.read_bytes()[: 3 * 512 + 3])
    with pytest.raises(DatasetError):
        unpack(archive, Path("folder"), "top", LIMIT)
    assert not Path("folder/top/b").exists()


def test_a_tar_whose_header_claims_more_than_a_machine_holds_is_refused() -> None:
    archive = write_tar(["top/" + "a" * 120])  # so long a name stands in a header of its own, which comes first
    content = bytearray(archive.read_bytes())
    content[124:136] = b"\x80" + bytes(3) + b"\xff" * 8
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    archive.write_bytes(content)
    assert "cannot be unpacked" in refusal_of(archive)


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed() -> None:
    Path("outside").write_bytes(b"precious")
    Path("folder/top").mkdir(parents=True)
    Path("folder/top/a").symlink_to(Path("outside").absolute())
    unpack(write_zip(["top/a"]), Path("folder"), "top", LIMIT)
    assert Path("outside").read_bytes() == b"precious"
    assert not Path("folder/top/a").is_symlink()


def test_permissions_in_an_archive_are_not_heeded() -> None:
    unpack(write_zip(["top/a"], mode=stat.S_IFREG | 0o4777), Path("folder"), "top", LIMIT)
    assert Path("folder/top/a").stat().st_mode & 0o7111 == 0


_NAMES = st.text(st.sampled_from("ab./\\:\0\n "), min_size=1, max_size=8)


@given(names=st.lists(st.one_of(_NAMES, _NAMES.map("top/".__add__)), min_size=1, max_size=4, unique=True))
def test_whatever_the_names_nothing_lands_outside(names: list[str]) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place) / "one" / "two"
        folder.mkdir(parents=True)
        try:
            count = unpack(write_tar(names), folder, "top", LIMIT)
        except DatasetError:
            count = 0
        files = [path for path in Path(place).rglob("*") if not path.is_dir()]
        assert len(files) == count
        assert all((folder / "top") in path.parents for path in files)
