"""`periplus images`: the images of a project, whether their tags have moved, and the packages in them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli.options import Format, Output, Project, client, local_time, width
from periplus.sdk.cli.outcome import Exit
from periplus.sdk.cli.terminal import say
from periplus.sdk.cli.text import counted, one_line, shorten_digests, table

if TYPE_CHECKING:
    from periplus.sdk.client import Client
    from periplus.snapshotter.v1 import snapshotter_pb2 as pb

MAX_READING_SECONDS = 1800.0
Image = Annotated[
    str, typer.Argument(help="An image as a manifest names it: python:3.11, ghcr.io/team/train@sha256:…")
]


def check(project: Project = "", output: Output = Format.TEXT) -> None:
    """Compare what the tags of the project's images point to now with what they pointed to at the last plan. Exits with 1 if
    one has moved: its steps will run again.

    \b
    Examples:
      periplus images check
      periplus images check -o json
    """
    with client(project) as services:
        found = list(services.check_images())
    moved = [each for each in found if _state(each) == "moved"]
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json({"images": [document(each) | {"state": _state(each)} for each in found]})
    elif not found:
        say(
            "no image of the project was resolved yet: images are, when a manifest that names them by tag is planned"
        )
    else:
        rows = [
            (
                one_line(each.image),
                _state(each),
                shorten_digests(each.digest),
                shorten_digests(each.now.digest) or one_line(each.now.reason),
                local_time(each.resolved_at),
            )
            for each in found
        ]
        say(*table(("IMAGE", "STATE", "WAS", "IS", "RESOLVED"), rows, width()))
    if moved:
        raise typer.Exit(Exit.FAILED)


def packages(image: Image, project: Project = "", output: Output = Format.TEXT) -> None:
    """List the packages of an image, read from its layers: Python, conda, Debian and Alpine.

    \b
    Examples:
      periplus images packages python:3.11
      periplus images packages ghcr.io/team/train:7 -o json
    """
    with client(project) as services:
        found = _read(services, image)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json(document(found))
        return
    rows = [(one_line(package.name), one_line(package.version)) for package in found.packages]
    say(
        *table(
            (f"{counted(len(rows), 'package')} of {shorten_digests(found.image.digest)}", "VERSION"),
            rows,
            width(),
        )
    )


def diff(
    old: Annotated[str, typer.Argument(help="The older image.")],
    new: Annotated[str, typer.Argument(help="The newer image.")],
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Compare the packages of two images.

    \b
    Examples:
      periplus images diff ghcr.io/team/train:7 ghcr.io/team/train:8
      periplus images diff python:3.11 python:3.12 -o json
    """
    with client(project) as services:
        before, after = (_versions(_read(services, image)) for image in (old, new))
    changes = [
        (name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if output is Format.JSON:
        from periplus.sdk.cli.document import print_json

        print_json({"changes": [{"package": name, "old": a, "new": b} for name, a, b in changes]})
    elif not changes:
        say("the images have the same packages")
    else:
        rows = [(one_line(name), one_line(a or "-"), one_line(b or "-")) for name, a, b in changes]
        say(*table(("PACKAGE", "OLD", "NEW"), rows, width()))


def _read(services: Client, image: str) -> pb.ReadImageResponse:
    """An image with its packages; waits while its layers are being read."""
    from periplus.sdk.client.call_error import CallError

    end = time.monotonic() + MAX_READING_SECONDS
    while True:
        try:
            return services.read_image(image)
        except CallError as error:
            if error.reason != "IMAGE_BEING_READ" or time.monotonic() > end:
                raise


def _versions(found: pb.ReadImageResponse) -> dict[str, str]:
    versions: dict[str, list[str]] = {}
    for package in found.packages:
        versions.setdefault(package.name, []).append(package.version)
    return {name: ", ".join(listed) for name, listed in versions.items()}


def _state(each: pb.CheckedImage) -> str:
    if not each.now.digest:
        return "unknown"
    return "same" if each.now.digest == each.digest else "moved"


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    group = typer.Typer(
        help="The images that pipelines run in: moved tags, and packages.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("check")(check)
    group.command("packages")(packages)
    group.command("diff")(diff)
    app.add_typer(group, name="images")
