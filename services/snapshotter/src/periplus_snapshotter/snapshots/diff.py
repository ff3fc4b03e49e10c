"""The differences of two snapshots."""

from dataclasses import dataclass

from periplus_snapshotter.snapshots.claim import Blob, printable_path
from periplus_snapshotter.snapshots.snapshot import Snapshot
from periplus_snapshotter.snapshots.warnings import versions_by_name


@dataclass(frozen=True)
class SnapshotChange:
    """One field that differs. A value is None if that snapshot has none."""

    field: str
    old: str | None
    new: str | None


def diff_snapshots(old: Snapshot, new: Snapshot) -> list[SnapshotChange]:
    """Every field that differs, sorted by field."""
    before, after = _fields(old), _fields(new)
    differing = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    return [SnapshotChange(field, before.get(field), after.get(field)) for field in differing]


def _fields(snapshot: Snapshot) -> dict[str, str]:
    claim = snapshot.claim
    platform = claim.platform
    fields = {
        "python": f"{platform.python_implementation} {platform.python_version}".strip(),
        "platform": f"{platform.system} {platform.machine}".strip(),
        "code": _digest(claim.code_archive),
    }
    if claim.lockfile:
        fields["lockfile"] = f"{claim.lockfile.name} {claim.lockfile.blob.digest}"
    if claim.git:
        fields["git.commit"] = claim.git.commit
        fields["git.branch"] = claim.git.branch
        fields["git.remote"] = claim.git.remote
        fields["git.patch"] = _digest(claim.git.patch)
        fields |= {
            f"file.{printable_path(file.path)}": file.blob.digest + (" executable" if file.executable else "")
            for file in claim.git.untracked
        }
    fields |= {f"omitted.{printable_path(file.path)}": file.reason for file in claim.omitted}
    fields |= {f"template.{template.name}": template.blob.digest for template in claim.templates}
    for kind, packages in (("package", claim.installed), ("locked", snapshot.locked)):
        fields |= {
            f"{kind}.{name}": ", ".join(versions) for name, versions in versions_by_name(packages).items()
        }
    return {field: value for field, value in fields.items() if value}


def _digest(blob: Blob | None) -> str:
    return blob.digest if blob else ""
