"""What differs: between two snapshots, and between a lockfile and what is installed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from periplus_snapshotter.domain import Claim, Package, Part, Snapshot, shown

NAMED = 20  # packages that one warning names
# Installers that environments hold and lockfiles rarely name.
TOOLS = {"pip", "setuptools", "wheel", "uv"}
# Periplus itself, which a project need not lock.
OWN = re.compile(r"periplus(-.+)?")


@dataclass(frozen=True)
class Change:
    """One field that differs. None: that side has none."""

    field: str
    old: str | None
    new: str | None


def changes(old: Snapshot, new: Snapshot) -> list[Change]:
    """Every field that differs, sorted by field."""
    before, after = _fields(old), _fields(new)
    differing = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    return [Change(field, before.get(field), after.get(field)) for field in differing]


def _fields(snapshot: Snapshot) -> dict[str, str]:
    claim = snapshot.claim
    platform = claim.platform
    fields = {
        "python": f"{platform.python_implementation} {platform.python_version}".strip(),
        "platform": f"{platform.system} {platform.machine}".strip(),
        "code": _named(claim.code),
    }
    if claim.lockfile:
        fields["lockfile"] = f"{claim.lockfile.name} {claim.lockfile.part.digest}"
    if claim.git:
        fields["git.commit"] = claim.git.commit
        fields["git.branch"] = claim.git.branch
        fields["git.remote"] = claim.git.remote
        fields["git.patch"] = _named(claim.git.patch)
        fields |= {f"file.{shown(file.path)}": file.part.digest for file in claim.git.untracked}
    fields |= {f"package.{name}": ", ".join(found) for name, found in versions(claim.installed).items()}
    fields |= {f"locked.{name}": ", ".join(found) for name, found in versions(snapshot.locked).items()}
    return {field: value for field, value in fields.items() if value}


def _named(part: Part | None) -> str:
    return part.digest if part else ""


def versions(packages: Iterable[Package]) -> dict[str, list[str]]:
    """The versions of each package, in order."""
    found: dict[str, set[str]] = {}
    for package in packages:
        found.setdefault(package.name, set()).add(package.version)
    return {name: sorted(of_one) for name, of_one in found.items()}


def warnings(claim: Claim, locked: tuple[Package, ...]) -> tuple[str, ...]:
    """What the caller should know: a tree with changes, and an environment that its lockfile does not describe.

    A package that is locked and not installed is no finding: locks cover other platforms and extras too.
    """
    found = []
    if claim.git and claim.git.dirty:
        found.append(_dirty(claim))
    if claim.lockfile and claim.installed:
        found += _drift(claim, locked)
    return tuple(found)


def _dirty(claim: Claim) -> str:
    assert claim.git is not None
    size = claim.git.patch.size if claim.git.patch else 0
    return (
        f"the work tree differs from commit {claim.git.commit[:12]}: "
        f"a patch of {size} bytes, {len(claim.git.untracked)} untracked files"
    )


def _drift(claim: Claim, locked: tuple[Package, ...]) -> list[str]:
    assert claim.lockfile is not None
    pinned = versions(locked)
    unlocked = {package.name for package in claim.installed if _needs_no_lock(package)}
    other, extra = [], []
    for name, have in versions(claim.installed).items():
        if name not in pinned:
            extra += [f"{name} {', '.join(have)}"] if name not in unlocked else []
        elif any(pinned[name]) and not set(have) <= set(pinned[name]):
            other.append(f"{name} {', '.join(have)} (locked {', '.join(pinned[name])})")
    found = []
    if other:
        found.append(f"installed packages differ from {claim.lockfile.name}: {_bounded(other)}")
    if extra:
        found.append(f"installed packages that {claim.lockfile.name} does not lock: {_bounded(extra)}")
    return found


def _needs_no_lock(package: Package) -> bool:
    return package.editable or package.name in TOOLS or OWN.fullmatch(package.name) is not None


def _bounded(named: list[str]) -> str:
    shortened = "; ".join(sorted(named)[:NAMED])
    return shortened if len(named) <= NAMED else f"{shortened}; and {len(named) - NAMED} more"
