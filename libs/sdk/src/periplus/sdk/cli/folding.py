"""Many steps on few lines: the items of a fan-out that are alike stand on one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

One = TypeVar("One")

_INDEX = re.compile(r"\((\d+)[^()]*\)")
FEW = 6  # items of a fan-out that are shown each for itself


@dataclass(frozen=True)
class Fold(Generic[One]):
    """Steps that share a line, and the name of it."""

    name: str
    members: Sequence[One]


def family(path: str) -> str:
    """What the items of a fan-out have in common: "train(2)" and "train(11)" are both "train(*)"."""
    return _INDEX.sub("(*)", path)


def folded(
    steps: Iterable[One],
    path: Callable[[One], str],
    alike: Callable[[One], object] = lambda _: None,
    few: int = FEW,
) -> list[Fold[One]]:
    """The steps in order of first appearance, more than `few` items of a fan-out together where they are `alike`."""
    families: dict[tuple[str, object], list[One]] = {}
    for step in steps:
        families.setdefault((family(path(step)), alike(step)), []).append(step)
    made = []
    for (name, _), members in families.items():
        if len(members) <= few:
            made += [Fold(path(one), [one]) for one in members]
        else:
            made.append(Fold(_named(name, [path(one) for one in members]), members))
    return made


def _named(name: str, paths: list[str]) -> str:
    """The fan-out's name with the range of its items where there is one: "train(0…99)"."""
    if name.count("(*)") != 1:
        return name
    indexes = sorted(int(found[1]) for path in paths if (found := _INDEX.search(path)))
    return name.replace("(*)", f"({indexes[0]}…{indexes[-1]})")
