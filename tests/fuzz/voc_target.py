"""VOC's annotations and lists of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from PIL import Image

from detector.data.dataset import FileDataset
from detector.data.voc import open_voc
from detector.structures import Sample
from tests.fuzz import raw_bytes
from tests.fuzz.cases import Case, Reading
from tests.fuzz.voc_validator import Expected, compare
from tests.fuzz.xml_text import Node, change, write

_SPLIT = "ImageSets/Main/train.txt"
_LINES = (
    "a", "b", "../a", "/a", "a.xml", ".", "..", ".hidden", "a b", "a\0", "\x1b[2Ja", "\ud800", "x" * 300, "a\\b", "-1",
    "missing", "é", "\ufeffa", "a  1", "a -1", "\u2028a", "\u00a0a", "C:a", "A", "a\r", "\x0ca", "%61", "b\tb", "~",
    "*",
)  # fmt: skip
_WHOLE = (
    b"", b" ", b"\0", b"<annotation/>", b"<annotation>", b"<x/>", b"<?xml version='1.0'?>", b"{}", b"\xff\xfe",
    b"<annotation>" * 50_000, b"<annotation>" + b"<a>" * 20 + b"</a>" * 20 + b"</annotation>",
    b"<annotation>" + b"<a/>" * 250_000 + b"</annotation>", b"<annotation>" + b"x" * 5_000_000 + b"</annotation>",
    b"<annotation>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</annotation>",
    b"<annotation a='" + b"x" * 3_000_000 + b"'/>",
    b"<!DOCTYPE a><annotation/>", b"<!DOCTYPE a SYSTEM 'http://127.0.0.1:9/a.dtd'><annotation/>",
    b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><annotation><object><name>&b;</name></object></annotation>",
    b"<!DOCTYPE a [<!ENTITY % b SYSTEM 'file:///etc/passwd'> %b;]><annotation/>",
    b"<!DOCTYPE a [<!ENTITY b 'bb'>]><annotation><object><name>&b;</name></object></annotation>",
    b"<annotation xmlns='http://a'/>", b"<a:annotation xmlns:a='b'/>",
    b"<?xml version='1.0' encoding='utf-7'?><annotation/>",
    b"<?xml version='1.0' encoding='nonsense'?><annotation/>", b"<?xml version='1.0' encoding='utf-16'?><annotation/>",
    b"<?xml version='1.0' encoding='hex'?><annotation/>", b"<?xml version='1.0' encoding='idna'?><annotation/>",
    b"<?xml version='1.0' encoding='latin-1'?><annotation><object><name>\xe9</name></object></annotation>",
    b"<?xml version='1.1'?><annotation/>", b"<annotation><!--" + b"-" * 100 + b"--></annotation>",
)  # fmt: skip


class VocTarget:
    """A set of four images; in each case one annotation or the list is changed."""

    name = "voc"

    def __init__(self, folder: Path, shared: Path | None) -> None:
        self.folder = folder
        self.names = ["a", "b", "c é", "2008_000001"]
        self.trees = {name: _annotation(number) for number, name in enumerate(self.names)}
        self.real = _real(shared)
        (folder / "JPEGImages").mkdir()
        for name in self.names:
            Image.new("RGB", (64, 48), (20, 90, 160)).save(folder / "JPEGImages" / f"{name}.jpg")
        self.list = b"a 1\nb -1\n2008_000001\n"
        self.own: dict[str, bytes | None] = {
            f"Annotations/{name}.xml": write(tree).encode() for name, tree in self.trees.items()
        }

    def case(self, random: Random) -> Case:
        """One changed file among sound ones."""
        classes = random.choice((None, None, ["dog", "cat"], ["cat", "unheard of"], ["unheard of"]))
        case = Case(arguments={"classes": classes, "drop": random.random() < 0.3})
        case.files = self.own | {_SPLIT: self.list}
        if random.random() < 0.12:
            case.files[_SPLIT], note = self._changed_list(random)
        else:
            case.files["Annotations/b.xml"], note = self._changed_tree(random)
        case.notes.append(note)
        return case

    def _changed_list(self, random: Random) -> tuple[bytes, str]:
        if random.random() < 0.3:
            return raw_bytes.mutate(random, self.list)
        lines = self.list.decode().splitlines()
        for _ in range(random.choice((1, 1, 2))):
            lines.insert(random.randrange(len(lines) + 1), random.choice(_LINES))
        text = random.choice(("\n", "\r\n", "\r", "\n\n")).join(lines)
        if random.random() < 0.1:
            return raw_bytes.reencode(random, text)
        return text.encode("utf-8", "surrogatepass"), f"list {lines!a:.80}"

    def _changed_tree(self, random: Random) -> tuple[bytes, str]:
        kind = random.random()
        if kind < 0.08:
            whole = random.choice(_WHOLE)
            return whole, f"whole {whole[:60]!a}"
        if kind < 0.25:
            source = random.choice([write(tree).encode() for tree in self.trees.values()] + self.real)
            return raw_bytes.mutate(random, source, self.own["Annotations/a.xml"] or b"")
        tree = self.trees[random.choice(("b", "b", "2008_000001"))]
        notes = []
        for _ in range(random.choice((1, 1, 2, 3))):
            tree, note = change(random, tree)
            notes.append(note)
        if kind < 0.3:
            data, note = raw_bytes.reencode(random, write(tree))
            return data, ", ".join([*notes, note])
        return write(tree).encode("utf-8", "surrogatepass"), ", ".join(notes)

    def readings(self, case: Case) -> Sequence[Reading]:
        """The one way it is read."""
        expected = Expected(case.files, _SPLIT, self.names, case.arguments["classes"], case.arguments["drop"])
        classes, drop = case.arguments["classes"], case.arguments["drop"]
        return (
            Reading(
                "open_voc",
                lambda: _opened(open_voc(self.folder, "train", classes, drop, 10_000_000)),
                lambda found: compare(expected, *found),
                expected.sound,
                (str(self.folder),),
            ),
        )


def _opened(dataset: FileDataset) -> tuple[FileDataset, Sample]:
    return dataset, dataset[len(dataset) // 2]


def _annotation(number: int) -> Node:
    objects = [
        Node("object", [
            Node("name", [name]), Node("pose", ["Left"]), Node("truncated", ["1"]), Node("difficult", [difficult]),
            Node("bndbox", [Node("xmin", ["3"]), Node("ymin", [ymin]), Node("xmax", ["40.5"]), Node("ymax", ["48"])]),
        ])
        for name, difficult, ymin in (("dog", "0", "1"), ("cat", "1", "12"), ("caté", "0", "7"))[: 3 - number % 2]
    ]  # fmt: skip
    size = Node("size", [Node("width", ["64"]), Node("height", ["48"]), Node("depth", ["3"])])
    source = Node("source", [Node("database", ["The VOC2007 Database"])])
    return Node("annotation", [Node("folder", ["VOC2007"]), Node("filename", ["b.jpg"]), source, size, *objects])


def _real(shared: Path | None) -> list[bytes]:
    folder = Path(shared or "") / "data/bccd/BCCD/Annotations"
    return [path.read_bytes() for path in sorted(folder.glob("*.xml"))[:5]] if shared else []
