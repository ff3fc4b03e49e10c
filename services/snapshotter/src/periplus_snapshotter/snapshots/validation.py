"""Rules of a claim that the proto can not express. Errors are `Invalid` with the path of the field."""

import re

from periplus_common.errors import Invalid
from periplus_snapshotter.snapshots.claim import Claim, File, GitState, OmittedFile, Package

MAX_UNTRACKED_BYTES = 32 << 20
"""Of all untracked files together."""

_GZIP_MAGIC = b"\x1f\x8b"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_USERINFO = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^/@]*)@", re.IGNORECASE)


def validate_claim(claim: Claim) -> None:
    """Raise `Invalid` for the first rule that the claim breaks."""
    for name, value in vars(claim.platform).items():
        _validate_text(value, f"claim.platform.{name}")
    for index, package in enumerate(claim.installed):
        _validate_package(package, f"claim.installed[{index}]")
    if claim.code_archive and not claim.code_archive.content.startswith(_GZIP_MAGIC):
        raise Invalid("is not a gzipped tar", field="claim.code_archive", reason="CODE_ARCHIVE_INVALID")
    if claim.git:
        _validate_git(claim.git)
    _validate_omitted(claim.omitted)
    names = [template.name for template in claim.templates]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise Invalid(
                "is a duplicate", field=f"claim.templates[{index}].name", reason="TEMPLATE_DUPLICATE"
            )


def _validate_package(package: Package, field: str) -> None:
    _validate_text(package.name, f"{field}.name")
    _validate_text(package.version, f"{field}.version")


def _validate_git(git: GitState) -> None:
    _validate_text(git.branch, "claim.git.branch")
    _validate_text(git.remote, "claim.git.remote")
    _validate_remote(git.remote)
    _validate_files(git.untracked)


def _validate_remote(remote: str) -> None:
    """Refuse passwords and, over HTTP, users, as these are often tokens. The error never contains the remote."""
    found = _USERINFO.match(remote)
    if found and (":" in found["user"] or found["scheme"].lower().startswith("http")):
        raise Invalid(
            "contains a user or a password; send the URL without them",
            field="claim.git.remote",
            reason="CREDENTIALS_IN_REMOTE",
            fix="git remote set-url origin <the URL without user and password>, and use a credential helper",
        )


def _validate_files(files: tuple[File, ...]) -> None:
    paths: set[bytes] = set()
    for index, file in enumerate(files):
        field = f"claim.git.untracked[{index}].path"
        _validate_path(file.path, field)
        if file.path in paths:
            raise Invalid("is a duplicate", field=field, reason="PATH_DUPLICATE")
        paths.add(file.path)
    if sum(file.blob.size_bytes for file in files) > MAX_UNTRACKED_BYTES:
        raise Invalid(
            f"has more than {MAX_UNTRACKED_BYTES} bytes in all files together",
            field="claim.git.untracked",
            reason="UNTRACKED_TOO_LARGE",
            fix="list files that are not source code in .gitignore",
        )


def _validate_omitted(omitted: tuple[OmittedFile, ...]) -> None:
    paths: set[bytes] = set()
    for index, file in enumerate(omitted):
        _validate_text(file.reason, f"claim.omitted[{index}].reason")
        if file.path in paths:
            raise Invalid("is a duplicate", field=f"claim.omitted[{index}].path", reason="PATH_DUPLICATE")
        paths.add(file.path)


def _validate_path(path: bytes, field: str) -> None:
    components = path.split(b"/")
    if b"\0" in path:
        problem = "contains a NUL byte"
    elif path.startswith(b"/"):
        problem = "is absolute"
    elif b".." in components:
        problem = 'leaves the project\'s root by ".."'
    elif b"" in components or b"." in components:
        problem = 'is not normalized: it has an empty component or "."'
    else:
        return
    raise Invalid(problem, field=field, reason="PATH_INVALID")


def _validate_text(value: str, field: str) -> None:
    if _CONTROL_CHARACTER.search(value):
        raise Invalid("contains a control character", field=field, reason="TEXT_INVALID")
