"""What can be amiss with classes, and counts worth knowing. Shape letters: K classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from detector.data.findings import Finding
from detector.data.raw.structure import RawSet
from detector.errors import quote

RARE = 10
IMBALANCE = 20.0

# Between a letter and anything else: "Pi_3" is "Pi 3" and "pi3", but "1-2" is not "12", nor "A-" "A".
_SEPARATORS = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=[^\W_])|(?<=[^\W_])[\s_-]+(?=[^\W\d_])")


def check_classes(raws: Sequence[RawSet], wanted: Sequence[str] | None) -> list[Finding]:
    """What is amiss with the classes of a data set; crowd regions do not count as objects.

    Args:
        raws: its splits; the first is the one to train on.
        wanted: ``data.classes``: the others are left out; None for all.
    """
    names = list(wanted or dict.fromkeys(name for raw in raws for name in raw.class_names))
    counts = [_counts(raw) for raw in raws]
    findings: list[Finding] = []
    if raws:
        findings += [*_presence_findings(raws, counts, names), *_rarity_findings(raws[0], counts[0], names)]
        findings += [] if wanted else _declaration_findings(raws)
    findings += [finding for first, second in alike(names) for finding in _likeness(raws, counts, first, second)]
    return findings + [finding for raw in raws for finding in _count_findings(raw)]


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ in case, separators or the plural alone; of each pair the one that came first, first.

    Single letters are left alone: where letters are read, "a" and "A" are two classes.
    """
    first_of: dict[str, str] = {}
    plurals: dict[str, str] = {}
    pairs = []
    for name in dict.fromkeys(names):
        key = _plain(name)
        if len(key) < 2:
            continue
        forms = list(_plurals(key))
        known = (
            first_of.get(key) or plurals.get(key) or next((first_of[form] for form in forms if form in first_of), None)
        )
        if known is not None:
            pairs.append((known, name))
        first_of.setdefault(key, name)
        plurals |= {form: name for form in forms if form not in plurals}
    return pairs


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", name).casefold().strip(" _\t\n"))


def _plurals(key: str) -> Iterator[str]:
    """What the plural of a name may be called."""
    if len(key) >= 3 and key[-1].isalpha():
        yield key + "s"
        if key.endswith(("s", "x", "z", "ch", "sh", "o")):
            yield key + "es"
        if key.endswith("y"):
            yield key[:-1] + "ies"


def _counts(raw: RawSet) -> dict[str, int]:
    """The objects of each declared class."""
    chosen = raw.labels[(raw.labels >= 0) & ~raw.crowd]
    totals = np.bincount(chosen, minlength=len(raw.class_names)).tolist()
    counts: dict[str, int] = dict.fromkeys(raw.class_names, 0)
    for name, total in zip(raw.class_names, totals, strict=True):
        counts[name] += total
    return counts


def _presence_findings(
    raws: Sequence[RawSet], counts: Sequence[dict[str, int]], names: Sequence[str]
) -> Iterator[Finding]:
    for name in names:
        holders = [raw for raw, count in zip(raws, counts, strict=True) if count.get(name)]
        if not holders:
            declared = any(name in count for count in counts)
            what = "is declared, but no object is of it" if declared else "is wanted, but not among the classes"
            yield raws[0].about_all("class-unused", f"{quote(name)} {what}")
            continue
        total = sum(count.get(name, 0) for count in counts)
        where = " and ".join(quote(raw.split) for raw in holders[:3])
        for raw, count in zip(raws, counts, strict=True):
            if not count.get(name):
                what = f"{quote(name)} has no object in {quote(raw.split)}, but {total} in {where}"
                yield raw.about_all("class-absent", what)


def _rarity_findings(raw: RawSet, count: dict[str, int], names: Sequence[str]) -> Iterator[Finding]:
    found = {name: count[name] for name in names if count.get(name)}
    for name, number in found.items():
        if number < RARE:
            yield raw.about_all("class-rare", f"{quote(name)} has {number} object{'s' * (number > 1)}")
    if found and max(found.values()) > IMBALANCE * min(found.values()):
        (most, high), (least, low) = (pick(found.items(), key=lambda item: item[1]) for pick in (max, min))
        what = f"{quote(most)} has {high} objects, {high / low:.0f} times as many as {quote(least)} ({low})"
        yield raw.about_all("class-imbalance", what)


def _declaration_findings(raws: Sequence[RawSet]) -> Iterator[Finding]:
    """VOC declares nothing: its classes are those that occur."""
    declaring = [raw for raw in raws if raw.format != "voc"]
    for raw in declaring[1:]:
        differences = _differences(declaring[0], raw)
        if differences:
            yield raw.about_all("classes-differ", "; ".join(differences))


def _differences(first: RawSet, second: RawSet) -> list[str]:
    ids = dict(zip(first.class_names, first.category_ids, strict=True))
    others = dict(zip(second.class_names, second.category_ids, strict=True))
    differences = []
    for raw, lacking in ((first, others.keys() - ids.keys()), (second, ids.keys() - others.keys())):
        if lacking:
            differences.append(f"{quote(raw.split)} does not declare {_listing(sorted(lacking))}")
    changed = [name for name in ids if name in others and others[name] != ids[name]]
    if changed:
        name = changed[0]
        more = f", and so {len(changed) - 1} more" if len(changed) > 1 else ""
        differences.append(
            f"{quote(name)} has id {quote(others[name])} here and {quote(ids[name])} in {quote(first.split)}{more}"
        )
    return differences


def _listing(names: Sequence[str]) -> str:
    return ", ".join(quote(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _likeness(raws: Sequence[RawSet], counts: Sequence[dict[str, int]], first: str, second: str) -> Iterator[Finding]:
    totals = [sum(count.get(name, 0) for count in counts) for name in (first, second)]
    raw = next((raw for raw in raws if second in raw.class_names), raws[0])
    what = f"{quote(first)} ({totals[0]} objects) and {quote(second)} ({totals[1]})"
    yield raw.about_all("class-alike", what)


def _count_findings(raw: RawSet) -> Iterator[Finding]:
    unread = [
        finding.image for finding in raw.findings if finding.kind.startswith("annotation-") and finding.image >= 0
    ]
    empty = np.bincount(raw.images[raw.images >= 0], minlength=len(raw)) == 0
    empty[unread] = False
    for kind, marked, noun in (
        ("no-objects", empty, "images"),
        ("crowd", raw.crowd, "objects"),
        ("difficult", raw.difficult, "objects"),
    ):
        if marked.any():
            yield raw.about_all(kind, f"{int(marked.sum())} of {len(marked)} {noun}")
