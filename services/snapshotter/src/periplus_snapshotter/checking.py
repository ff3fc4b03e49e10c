"""What makes a claim unsound: each finding is `Invalid` with the path of the field."""

import re

from periplus_common.errors import Invalid
from periplus_snapshotter.domain import Claim, File, Git, Package

GZIP = b"\x1f\x8b"
MAX_UNTRACKED = 32 << 20  # bytes of all untracked files together

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_USERINFO = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^/@]*)@", re.IGNORECASE)


def check(claim: Claim) -> None:
    """Raise `Invalid` for what the rules of the proto cannot say."""
    for name, value in vars(claim.platform).items():
        _text(value, f"claim.platform.{name}")
    for index, package in enumerate(claim.installed):
        _package(package, f"claim.installed[{index}]")
    if claim.code and not claim.code.content.startswith(GZIP):
        raise Invalid("is not a gzipped tar", field="claim.code_archive", reason="CODE_ARCHIVE_INVALID")
    if claim.git:
        _git(claim.git)


def _package(package: Package, field: str) -> None:
    _text(package.name, f"{field}.name")
    _text(package.version, f"{field}.version")


def _git(git: Git) -> None:
    _text(git.branch, "claim.git.branch")
    _text(git.remote, "claim.git.remote")
    _remote(git.remote)
    _files(git.untracked)


def _remote(remote: str) -> None:
    """No password, and over HTTP no user either, as a token is often sent as one. Never repeats the value."""
    found = _USERINFO.match(remote)
    if found and (":" in found["user"] or found["scheme"].lower().startswith("http")):
        raise Invalid(
            "holds a user or a password; send the address without them",
            field="claim.git.remote",
            reason="CREDENTIALS_IN_REMOTE",
            fix="git remote set-url origin <the address without user and password>, and use a credential helper",
        )


def _files(files: tuple[File, ...]) -> None:
    seen: set[bytes] = set()
    for index, file in enumerate(files):
        field = f"claim.git.untracked[{index}].path"
        _path(file.path, field)
        if file.path in seen:
            raise Invalid("comes twice", field=field, reason="PATH_TWICE")
        seen.add(file.path)
    if sum(file.part.size for file in files) > MAX_UNTRACKED:
        raise Invalid(
            f"hold more than {MAX_UNTRACKED} bytes together",
            field="claim.git.untracked",
            reason="UNTRACKED_TOO_LARGE",
            fix="have git ignore what is no source (.gitignore)",
        )


def _path(path: bytes, field: str) -> None:
    parts = path.split(b"/")
    if b"\0" in path:
        problem = "holds a NUL byte"
    elif path.startswith(b"/"):
        problem = "is absolute"
    elif b".." in parts:
        problem = 'leaves the root by ".."'
    elif b"" in parts or b"." in parts:
        problem = 'is not in normal form: no empty part and no "."'
    else:
        return
    raise Invalid(problem, field=field, reason="PATH_INVALID")


def _text(value: str, field: str) -> None:
    if _CONTROL.search(value):
        raise Invalid("holds a control character", field=field, reason="TEXT_INVALID")
