"""Keys of objects: the project that one belongs to, and texts that are a key in every S3 store.

Argo stores outputs below `projects/<project>/`, the snapshotter code below `code/<project>/` and the rest below `snapshots/`.
"""

from __future__ import annotations

OF_PROJECTS = ("projects/", "code/", "snapshots/")
"""What the keys of objects begin with that belong to a project, or to the snapshotter alone."""
PROJECT_LABEL = "periplus.dev/project"
"""The label of the Workflow of a run: its project, which Argo makes a part of the keys of outputs."""
MAX_KEY_BYTES = 1024
"""The limit of S3."""


def own_prefixes(project: str) -> tuple[str, str]:
    """What the keys begin with that a project may write, and read alone."""
    return f"projects/{project}/", f"code/{project}/"


def may_read(project: str, key: str) -> bool:
    """Whether an object belongs to the project or to none; False for a text that some stores read as another key."""
    is_own = key.startswith(own_prefixes(project))
    return not malformed_reason(key) and (is_own or not f"{key}/".startswith(OF_PROJECTS))


def may_write(project: str, key: str) -> bool:
    """Whether a step of the project may store an object there: below its own prefix, or where no project's objects are."""
    return may_read(project, key) and not key.startswith(own_prefixes(project)[1])


def malformed_reason(key: str) -> str:
    r"""Why a text is no key; empty if it is one. A slash may end it, as that of a folder.

    SeaweedFS reads `a//b`, `/a/b` and `a\b` as `a/b`; others resolve `..` as in a path.
    """
    if not key:
        return "is empty"
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        return f"has more than {MAX_KEY_BYTES} bytes"
    if "\\" in key or "\0" in key:
        return "has a backslash or a NUL character"
    parts = key.removesuffix("/").split("/")
    if "" in parts or "." in parts or ".." in parts:
        return "begins with a slash, or has a part that is empty, . or .."
    return ""
