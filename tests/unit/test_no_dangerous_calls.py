"""What lets a file of a stranger run code, take all memory or go on for ever is not called anywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Where a call that is refused elsewhere is right, and why.
JUSTIFIED = {
    ("detector/engine/checkpoint.py", "torch.save"),  # into a DurableFile
    ("detector/engine/divergence.py", "torch.save"),  # into a DurableFile
    ("detector/weights/export.py", "torch.save"),  # renamed when it is whole
    ("detector/weights/export.py", "pickle.dump"),  # what detectron2 reads
    ("detector/numpy_pickle.py", "pickle.Unpickler"),  # restricted by its find_class
    ("detector/weights/files.py", "pickle.Unpickler"),  # the same, where all is in one file
}
NEVER = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "pickle.dump", "pickle.dumps", "marshal.load", "marshal.loads",
    "shelve.open", "dill.load", "joblib.load", "cloudpickle.load", "numpy.fromfile", "numpy.genfromtxt",
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnl", "pty.spawn",
    "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.full_load_all", "yaml.unsafe_load_all",
    "yaml.safe_load", "yaml.safe_load_all", "yaml.compose_all", "yaml.parse", "yaml.scan",
    "xml.etree.ElementTree.parse", "xml.etree.ElementTree.fromstring", "xml.etree.ElementTree.iterparse",
    "xml.etree.ElementTree.XML", "xml.etree.ElementTree.XMLParser", "xml.etree.ElementTree.XMLPullParser",
    "xml.dom.minidom.parse", "xml.dom.minidom.parseString", "xml.sax.parse", "xml.sax.make_parser", "lxml.etree.parse",
    "cv2.imread", "cv2.imreadmulti", "cv2.FileStorage", "torchvision.io.read_image", "torchvision.io.decode_image",
    "skimage.io.imread", "imageio.imread", "matplotlib.pyplot.imread", "matplotlib.image.imread",
    "torch.save", "torch.jit.load", "torch.hub.load", "torch.hub.load_state_dict_from_url",
    "torch.package.PackageImporter",
    "tempfile.mktemp", "os.tmpnam",
}  # fmt: skip
# As methods of anything: an archive's members may lead out of the folder.
NEVER_METHODS = {"extractall", "extract", "allow_pickle"}


@cache
def trees() -> tuple[tuple[str, ast.Module], ...]:
    """Each file of the package and of the tools, parsed."""
    files = sorted([*(ROOT / "detector").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
    return tuple((str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in files)


def origins(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: ``np`` for ``numpy``, ``load`` for ``pickle.load``."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                name = item.asname or item.name.split(".")[0]
                found[name] = item.name if item.asname else name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for item in node.names:
                found[item.asname or item.name] = f"{node.module}.{item.name}"
    return found


def dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """The full name of what an expression refers to, if it is a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def references() -> Iterator[tuple[str, int, str]]:
    """Every dotted name in the code, called or handed on, with its place."""
    for path, tree in trees():
        names = origins(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)):
                name = dotted(node, names)
                if name is not None:
                    yield path, node.lineno, name


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call, with the full name of what is called or, of a method of something unknown, its own name."""
    for path, tree in trees():
        names = origins(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                own = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                yield path, node, dotted(node.func, names) or f"?.{own}"


def test_nothing_that_is_dangerous_is_used() -> None:
    found = [
        f"{path}:{line}: {name}" for path, line, name in references() if name in NEVER and (path, name) not in JUSTIFIED
    ]
    assert not found


def test_every_exception_is_still_needed() -> None:
    used = {(path, name) for path, _, name in references()}
    one_of = {entry for entry in JUSTIFIED if entry[1] == "pickle.Unpickler"}
    assert not JUSTIFIED - one_of - used
    assert one_of & used


def test_no_archive_is_unpacked_without_looking_at_its_names() -> None:
    found = [f"{path}:{node.lineno}: {name}" for path, node, name in calls() if name.split(".")[-1] in NEVER_METHODS]
    assert not found


def test_torch_loads_weights_only() -> None:
    loads = [(path, node) for path, node, name in calls() if name == "torch.load"]
    assert loads
    for path, node in loads:
        flags = [item.value for item in node.keywords if item.arg == "weights_only"]
        assert [getattr(flag, "value", None) for flag in flags] == [True], f"{path}:{node.lineno}"


def test_numpy_loads_no_objects() -> None:
    for path, node, name in calls():
        if name == "numpy.load":
            flags = [getattr(item.value, "value", None) for item in node.keywords if item.arg == "allow_pickle"]
            assert flags == [False], f"{path}:{node.lineno}"


def test_no_shell_is_started() -> None:
    found = [
        f"{path}:{node.lineno}: {name}"
        for path, node, name in calls()
        for item in node.keywords
        if item.arg == "shell" and getattr(item.value, "value", None) is not False
    ]
    assert not found


def test_yaml_is_composed_with_a_loader_of_its_own() -> None:
    composed = [(path, node) for path, node, name in calls() if name == "yaml.compose"]
    assert composed
    for path, node in composed:
        loaders = [ast.unparse(item.value) for item in node.keywords if item.arg == "Loader"]
        assert loaders == ["_Loader"], f"{path}:{node.lineno}"


def test_pillow_opens_named_formats_alone() -> None:
    for path, node, name in calls():
        if name == "PIL.Image.open" and path.startswith("detector/data/"):
            assert any(item.arg == "formats" for item in node.keywords), f"{path}:{node.lineno}"


@pytest.mark.parametrize("setting", ["MAX_IMAGE_PIXELS", "LOAD_TRUNCATED_IMAGES", "allow_pickle"])
def test_no_limit_is_lifted(setting: str) -> None:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                assert not any(ast.unparse(target).endswith(setting) for target in node.targets), (
                    f"{path}:{node.lineno}"
                )
            if isinstance(node, ast.keyword) and node.arg == setting:
                assert getattr(node.value, "value", None) is False, f"{path}:{node.value.lineno}"


def test_the_look_at_the_code_sees_aliases() -> None:
    tree = ast.parse("import numpy as np\nfrom pickle import load as read\nnp.load\nread")
    names = origins(tree)
    found = [dotted(node.value, names) for node in tree.body if isinstance(node, ast.Expr)]
    assert found == ["numpy.load", "pickle.load"]


def test_the_files_are_found() -> None:
    assert len(trees()) > 50
    assert any(Path(path).parts[0] == "tools" for path, _ in trees())
