"""Warnings about a claim: a dirty work tree, and installed packages that differ from the lockfile."""

import re
from collections.abc import Iterable

from periplus_snapshotter.snapshots.claim import Claim, Package

MAX_NAMED_PACKAGES = 20
"""How many packages one warning names."""
INSTALLERS = {"pip", "setuptools", "wheel", "uv"}
"""Environments contain them, and lockfiles rarely name them."""
_PERIPLUS = re.compile(r"periplus(-.+)?")


def claim_warnings(claim: Claim, locked: tuple[Package, ...]) -> tuple[str, ...]:
    """The warnings about a claim whose lockfile pins `locked`.

    A locked package that is not installed is no reason for one: lockfiles cover other platforms and extras, too.
    """
    found = []
    if claim.git and claim.git.is_dirty:
        found.append(_dirty(claim))
    if claim.lockfile and claim.installed:
        found += _drift(claim, locked)
    return tuple(found)


def versions_by_name(packages: Iterable[Package]) -> dict[str, list[str]]:
    """The sorted versions of each package."""
    found: dict[str, set[str]] = {}
    for package in packages:
        found.setdefault(package.name, set()).add(package.version)
    return {name: sorted(versions) for name, versions in found.items()}


def _dirty(claim: Claim) -> str:
    assert claim.git is not None
    patch_bytes = claim.git.patch.size_bytes if claim.git.patch else 0
    return (
        f"the work tree differs from commit {claim.git.commit[:12]}: "
        f"a patch of {patch_bytes} bytes, {len(claim.git.untracked)} untracked files"
    )


def _drift(claim: Claim, locked: tuple[Package, ...]) -> list[str]:
    assert claim.lockfile is not None
    locked_versions = versions_by_name(locked)
    needs_no_lock = {package.name for package in claim.installed if _needs_no_lock(package)}
    other_version, not_locked = [], []
    for name, installed in versions_by_name(claim.installed).items():
        if name not in locked_versions:
            if name not in needs_no_lock:
                not_locked.append(f"{name} {', '.join(installed)}")
        elif any(locked_versions[name]) and not set(installed) <= set(locked_versions[name]):
            other_version.append(f"{name} {', '.join(installed)} (locked {', '.join(locked_versions[name])})")
    warnings = []
    if other_version:
        warnings.append(f"installed packages differ from {claim.lockfile.name}: {_list(other_version)}")
    if not_locked:
        warnings.append(f"installed packages that {claim.lockfile.name} does not lock: {_list(not_locked)}")
    return warnings


def _needs_no_lock(package: Package) -> bool:
    return package.editable or package.name in INSTALLERS or _PERIPLUS.fullmatch(package.name) is not None


def _list(packages: list[str]) -> str:
    text = "; ".join(sorted(packages)[:MAX_NAMED_PACKAGES])
    omitted = len(packages) - MAX_NAMED_PACKAGES
    return f"{text}; and {omitted} more" if omitted > 0 else text
