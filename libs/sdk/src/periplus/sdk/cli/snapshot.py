"""`periplus snapshot`: what a run claims to be made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli.options import Format, Output, Project, client, local_time, resolve, width
from periplus.sdk.cli.outcome import Exit, Failure
from periplus.sdk.cli.terminal import say, say_block
from periplus.sdk.cli.text import counted, one_line, shorten_digests, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from periplus.sdk.client import Client
    from periplus.snapshotter.v1 import snapshotter_pb2 as pb

MAX_LISTED_FILES = 20


def show(
    snapshot: Annotated[
        str,
        typer.Argument(help="A run (its id, @latest, @latest~1) for its snapshot, or a snapshot's sha256:…."),
    ] = "@latest",
    content: Annotated[
        bool, typer.Option("--content", help="Also the patch; with -o json also files and lockfile.")
    ] = False,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Show the snapshot of a run. Prints the commit, changes, lockfile, packages, Python and platform that it claims.

    \b
    Examples:
      periplus snapshot show
      periplus snapshot show digits-x7k2p --content
      periplus snapshot show sha256:4e07… -o json
    """
    with client(project) as services:
        found = services.get_snapshot(_identity(services, snapshot), content=content)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json(document(found))
        return
    say(*_lines(found), width=width())
    if content and found.claim.git.patch:
        say("")
        say_block(found.claim.git.patch.decode(errors="backslashreplace"))


def find(
    package: Annotated[str, typer.Argument(help="The name of a package: langchain, openssl.")],
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Find where a package is. Lists the images whose packages were read and the snapshots that have it, with versions.

    \b
    Examples:
      periplus snapshot find langchain
      periplus snapshot find openssl -o json
    """
    with client(project) as services:
        found = services.find_package(package)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json(document(found))
        return
    if not found.images and not found.snapshots:
        raise Failure(
            f"no snapshot has {package}, and no image that was read",
            where="package",
            fix="periplus images packages <image>, to read an image",
            code=Exit.NOT_FOUND,
        )
    rows = [
        (
            one_line(use.image),
            shorten_digests(use.digest),
            one_line(use.package),
            one_line(use.version),
            local_time(use.resolved_at),
        )
        for use in found.images
    ]
    if rows:
        say(*table(("IMAGE", "DIGEST", "PACKAGE", "VERSION", "RESOLVED"), rows, width()))
    claims = [
        (
            shorten_digests(use.snapshot),
            "installed" if use.installed else "locked",
            one_line(use.version),
            local_time(use.taken_at),
        )
        for use in found.snapshots
    ]
    if claims:
        say(*([""] if rows else []), *table(("SNAPSHOT", "PACKAGE IS", "VERSION", "TAKEN"), claims, width()))


def _identity(services: Client, snapshot: str) -> str:
    if snapshot.startswith("sha256:"):
        return snapshot
    run = services.get_run(resolve(services, snapshot))
    if not run.snapshot:
        raise Failure(f"run {run.id} has no snapshot", where="snapshot", code=Exit.NOT_FOUND)
    return run.snapshot


def _lines(snapshot: pb.Snapshot) -> Iterator[str]:
    claim, digests = snapshot.claim, snapshot.digests
    platform = claim.platform
    untracked = sorted(name.removeprefix("untracked/") for name in digests if name.startswith("untracked/"))
    changes = ["a patch"] if "git.patch" in digests else []
    changes += [counted(len(untracked), "untracked file")] if untracked else []
    git = claim.HasField("git")
    fields = {
        "snapshot": snapshot.id,
        "taken": local_time(snapshot.taken_at),
        "commit": claim.git.commit if git else "not in a git repository",
        "branch": claim.git.branch,
        "remote": claim.git.remote,
        "changes": (" and ".join(changes) or "none") if git else "",
        "lockfile": f"{claim.lockfile.name}, {counted(len(snapshot.locked), 'package')}"
        if claim.lockfile.name
        else "none",
        "installed": counted(len(claim.installed), "package"),
        "python": f"{platform.python_implementation} {platform.python_version}".strip(),
        "platform": f"{platform.system} {platform.machine}".strip(),
        "environment": snapshot.environment,
        "code": digests.get("code", ""),
        "templates": ", ".join(
            sorted(name.removeprefix("template/") for name in digests if name.startswith("template/"))
        ),
    }
    for name, value in fields.items():
        if value:
            yield f"{name + ':':<13}{one_line(value)}"
    for warning in snapshot.warnings:
        yield f"{'warning:':<13}{one_line(warning)}"
    if untracked:
        yield from ("", "untracked:", *(f"  {name}" for name in untracked[:MAX_LISTED_FILES]))
        if len(untracked) > MAX_LISTED_FILES:
            yield f"  … and {len(untracked) - MAX_LISTED_FILES:,} more"
    if claim.omitted:
        named = (f"  {each.path.decode(errors='backslashreplace')}: {each.reason}" for each in claim.omitted)
        yield from ("", "not in the snapshot:", *map(one_line, named))


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    group = typer.Typer(
        help="The code and the environment that a run claims, and where packages are.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("show")(show)
    group.command("find")(find)
    app.add_typer(group, name="snapshot")
