"""XML as a tree of plain nodes, and mutations of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from xml.sax.saxutils import escape

_TEXTS = (
    "", " ", "0", "1", "-1", "1.5", "1e3", "1e308", "1e999", "nan", "inf", "-inf", "1_0", "٣", "0x10", "1,5", "64",
    "65",
    "1000", "1e-320", "999999", "1000000", "9" * 400, "True", "None", "x" * 100_000, "\ud800", "é", "a\nb", "  7\n",
    "dog", "Dog", "dog ", "../../x", "<script>", "\u202eabc", "\u2028", "\u200b", "\x7f", "\x85", "\ufffe",
)  # fmt: skip
_RAW = (
    "&undefined;", "&#0;", "&#27;[2J", "&#xD800;", "&#x1F600;", "&#99999999;", "<![CDATA[<dog>]]>", "<!-- -->",
    "<?x y?>",
    "<x", "</x>", "<x y=1/>", "<x y='1' y='2'/>", "]]>", "\x00", "\x1b[2J", "&lt;b&gt;", "<a:b/>", "&", "&#8238;",
)  # fmt: skip
_TAGS = (
    "object", "name", "bndbox", "xmin", "ymin", "xmax", "ymax", "size", "width", "height", "difficult", "part",
    "Object",
    "x" * 5000, "é", "a:b", "annotation",
)  # fmt: skip


class RawText(str):
    """Stands in the file as it is."""


@dataclass
class Node:
    """An element.

    Attributes:
        tag: its name.
        children: elements and texts.
        attributes: as they stand in the file.
    """

    tag: str
    children: list[Node | str] = field(default_factory=list)
    attributes: str = ""


def write(node: Node) -> str:
    """The file."""
    inside = "".join(
        write(child) if isinstance(child, Node) else child if isinstance(child, RawText) else escape(child)
        for child in node.children
    )
    return f"<{node.tag}{node.attributes}>{inside}</{node.tag}>"


def nodes_of(node: Node) -> Iterator[Node]:
    """An element and all within it."""
    yield node
    for child in node.children:
        if isinstance(child, Node):
            yield from nodes_of(child)


def change(random: Random, tree: Node) -> tuple[Node, str]:
    """One change; the given tree stays as it is."""
    tree = copy.deepcopy(tree)
    node = random.choice(list(nodes_of(tree)))
    operation = random.choice(
        ("text", "text", "text", "text", "raw", "remove", "remove", "copy", "rename", "wrap", "attributes", "insert",
         "swap", "twice")
    )  # fmt: skip
    note = f"{operation} in {node.tag[:20]}"
    inner = [child for child in node.children if isinstance(child, Node)]
    if operation == "text" and not inner:
        node.children = [random.choice(_TEXTS)]
        note += f": {node.children[0]!a:.40}"
    elif operation in ("raw", "text"):
        raw = RawText(random.choice(_RAW))
        node.children.insert(random.randrange(len(node.children) + 1), raw)
        note += f": {str(raw)!a:.40}"
    elif operation == "remove" and node.children:
        node.children.pop(random.randrange(len(node.children)))
    elif operation == "copy" and inner:
        node.children.insert(random.randrange(len(node.children) + 1), copy.deepcopy(random.choice(inner)))
    elif operation == "rename":
        node.tag = random.choice(_TAGS)
    elif operation == "wrap":
        for _ in range(random.choice((1, 3, 14, 40))):
            node.children = [Node(random.choice(_TAGS[:12]), node.children)]
    elif operation == "attributes":
        node.attributes = random.choice(
            (' a="b"', " a=b", ' a="' + "x" * 100_000 + '"', ' xmlns="u"', " é='1'", ' a="<"')
        )
    elif operation == "insert":
        node.children.append(Node(random.choice(_TAGS), [random.choice(_TEXTS)]))
    elif operation == "swap":
        random.shuffle(node.children)
    elif operation == "twice":
        node.children = node.children * random.choice((2, 2, 50))
    return tree, note
