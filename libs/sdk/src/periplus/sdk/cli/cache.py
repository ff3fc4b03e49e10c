"""`periplus cache` and `periplus why`: the cache's entries, what they saved, and why a step was not served."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from periplus.sdk.cli import divergences
from periplus.sdk.cli.options import Format, Output, Project, Run, client, local_time, resolve, width
from periplus.sdk.cli.outcome import Exit, Failure
from periplus.sdk.cli.terminal import say
from periplus.sdk.cli.text import changed_value, counted, duration_text, one_line, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from periplus.cache.v1 import cache_pb2 as pb
    from periplus.sdk.client import Client

MAX_PAGE_SIZE = 1000
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")

EntryName = Annotated[
    str,
    typer.Argument(
        help="An entry: RUN/STEP (@latest/train) for that of a step, or its fingerprint, or 6 digits of it or more."
    ),
]


def ls(
    template: Annotated[str, typer.Option("--template", help="Only entries of this template.")] = "",
    run: Annotated[
        str, typer.Option("--run", help="Only entries that this run produced: its id, or @latest.")
    ] = "",
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="Also entries that were invalidated or have expired.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many at most.")] = 20,
    page_token: Annotated[
        str,
        typer.Option("--page-token", help="Go on after an earlier page: its next_page_token with -o json."),
    ] = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """List the cache's entries, newest first.

    \b
    Examples:
      periplus cache ls
      periplus cache ls --template train -n 100
      periplus cache ls --run @latest --all -o json
    """
    with client(project) as services:
        producer = resolve(services, run) if run else ""
        entries: list[pb.Entry] = []
        while len(entries) < limit:
            page = services.list_entries(
                template=template,
                run=producer,
                invalidated=all_,
                size=min(limit - len(entries), MAX_PAGE_SIZE),
                page=page_token,
            )
            entries += page.entries
            page_token = page.next_page_token
            if not page_token:
                break
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json({"entries": [document(one) for one in entries], "next_page_token": page_token})
        return
    if not entries:
        say(f"no entries in project {services.connection.project}")
        return
    head = ("FINGERPRINT", "TEMPLATE", "PRODUCED BY", "RECORDED", "TOOK", "HITS", "STATE")
    say(*table(head, map(_row, entries), width()))
    if page_token:
        say(f"… and older ones: -n {limit * 5}")


def _row(entry: pb.Entry) -> tuple[str, ...]:
    return (
        entry.fingerprint.removeprefix("sha256:")[:12], entry.template,
        f"{entry.producer_run}/{entry.producer_step}", local_time(entry.recorded_at), _took(entry),
        f"{entry.hits:,}", _state(entry),
    )  # fmt: skip


def _took(entry: pb.Entry) -> str:
    return duration_text(entry.duration.seconds + entry.duration.nanos / 1e9)


def _state(entry: pb.Entry) -> str:
    import time

    if entry.invalidation_reason:
        return f"invalidated: {entry.invalidation_reason}"
    if entry.HasField("expires_at"):
        verb = "expires" if entry.expires_at.seconds > time.time() else "expired"
        return f"{verb} {local_time(entry.expires_at)}"
    return "served"


def show(entry: EntryName, project: Project = "", output: Output = Format.TEXT) -> None:
    """Show an entry. Prints its producer, its outputs, and the key that a step must have to be served it.

    \b
    Examples:
      periplus cache show @latest/train
      periplus cache show 4e07408562be -o json
    """
    with client(project) as services:
        found = services.get_entry(_fingerprint(services, entry))
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json(document(found))
        return
    say(*_entry_lines(found))


def _entry_lines(entry: pb.Entry) -> Iterator[str]:
    from periplus.sdk.cli.summary import output_lines

    fields = {
        "fingerprint": entry.fingerprint,
        "template": entry.template,
        "produced by": f"{entry.producer_run}/{entry.producer_step}",
        "recorded": local_time(entry.recorded_at),
        "took": _took(entry),
        "hits": f"{entry.hits:,}",
        "state": _state(entry),
    }
    for name, value in fields.items():
        yield one_line(f"{name + ':':<14}{one_line(value)}", width())
    if outputs := list(output_lines(entry.outputs, width())):
        yield from ("", "outputs:", *outputs)
    yield from ("", "key:", *(one_line(f"  {text}", width()) for text in _indented(entry.key)))


def _indented(key: str) -> list[str]:
    import json

    try:
        return json.dumps(json.loads(key), indent=2, ensure_ascii=False).splitlines()
    except ValueError:
        return [key]


def invalidate(
    entries: Annotated[
        list[str] | None,
        typer.Argument(help="Entries: RUN/STEP, or a fingerprint or its first digits."),
    ] = None,
    template: Annotated[str, typer.Option("--template", help="Entries of this template.")] = "",
    run: Annotated[
        str, typer.Option("--run", help="Entries that this run produced: its id, or @latest.")
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the record.")
    ] = "invalidated with `periplus cache invalidate`",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the entries.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Invalidate entries, so that their steps run again. Entries must match every selector of the command.

    \b
    Examples:
      periplus cache invalidate @latest/train --reason "wrong labels"
      periplus cache invalidate --template train --dry-run
      periplus cache invalidate --run digits-x7k2p --yes
    """
    if not (entries or template or run):
        raise Failure(
            "no entry is selected",
            fix="name entries, or give --template or --run; `periplus cache ls` lists them",
        )
    with client(project) as services:
        fingerprints = [_fingerprint(services, entry) for entry in entries or ()]
        producer = resolve(services, run) if run else ""

        def call(*, validate_only: bool) -> int:
            return services.invalidate_entries(
                fingerprints=fingerprints,
                template=template,
                run=producer,
                reason=reason,
                validate_only=validate_only,
            )

        count = call(validate_only=True)
        if count and not dry_run:
            if not yes:
                _confirm(count, output)
            count = call(validate_only=False)
    if output is Format.JSON:
        from periplus.sdk.cli.document import print_json

        print_json({"count": count, "dry_run": dry_run})
    elif not count:
        say("no entry matches, nothing was invalidated")
    else:
        entry_or_entries = f"{count:,} {'entry' if count == 1 else 'entries'}"
        say(f"{entry_or_entries} would be invalidated" if dry_run else f"{entry_or_entries} invalidated")


def _confirm(count: int, output: Format) -> None:
    """Ask on a terminal; raises Failure where there is none, and typer.Abort for any answer but yes."""
    if not sys.stdin.isatty() or output is Format.JSON:
        raise Failure(
            f"{count:,} {'entry matches' if count == 1 else 'entries match'}, and the command was not confirmed",
            fix="add --yes to invalidate them, or --dry-run to count them",
        )
    noun = "entry" if count == 1 else "entries"
    typer.confirm(f"Invalidate {count:,} {noun}? Their steps will run again.", abort=True)


def savings(
    run: Annotated[
        str, typer.Argument(help="Only the hits of this run: its id, or @latest; default: all.")
    ] = "",
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Show how many steps the cache served, and the run time that this saved.

    \b
    Examples:
      periplus cache savings
      periplus cache savings @latest -o json
    """
    with client(project) as services:
        chosen = resolve(services, run) if run else ""
        found = services.get_savings(chosen)
        scope = f"run {one_line(chosen)}" if chosen else f"project {one_line(services.connection.project)}"
    saved = found.saved.seconds + found.saved.nanos / 1e9
    if output is Format.JSON:
        from periplus.sdk.cli.document import print_json

        print_json({"run": chosen or None, "hits": found.hits, "saved_seconds": saved})
        return
    say(f"{scope}: {counted(found.hits, 'step')} served from the cache, {duration_text(saved)} saved")


def _fingerprint(services: Client, entry: str) -> str:
    """The fingerprint of an entry that was named in one of the short forms. Raises Failure if there is not exactly one."""
    run, slash, step = entry.partition("/")
    if slash:
        return services.explain(resolve(services, run), step).fingerprint
    match = _DIGEST.fullmatch(entry)
    if not match:
        raise Failure(
            f"{entry!r} names no entry",
            fix="give RUN/STEP, as in @latest/train, or a fingerprint of `periplus cache ls`",
        )
    if len(match[1]) == 64:
        return f"sha256:{match[1]}"
    found, page = set[str](), ""
    while True:
        answer = services.list_entries(invalidated=True, size=MAX_PAGE_SIZE, page=page)
        found |= {
            one.fingerprint for one in answer.entries if one.fingerprint.startswith(f"sha256:{match[1]}")
        }
        page = answer.next_page_token
        if not page or len(found) > 1:
            break
    if not found:
        raise Failure(f"no entry begins with {entry}", fix="periplus cache ls --all", code=Exit.NOT_FOUND)
    if len(found) > 1:
        raise Failure(f"several entries begin with {entry}", fix="give more digits of the fingerprint")
    return found.pop()


def why(
    run: Run,
    step: Annotated[str, typer.Argument(help="The step's path in the run: train, main.train, train(2).")],
    project: Project = "",
    output: Output = Format.TEXT,
) -> None:
    """Explain why a step was not served from the cache. Shows the most similar entry, and each field that differs.

    \b
    Examples:
      periplus why @latest train
      periplus why digits-x7k2p 'train(2)' -o json
    """
    with client(project) as services:
        chosen = resolve(services, run)
        found = services.explain(chosen, step)
    if output is Format.JSON:
        from periplus.sdk.cli.document import document, print_json

        print_json({"run": chosen, "step": step, **document(found)})
        return
    verdict = "was served from the cache" if found.hit else "was not served from the cache"
    say(f"{step} of {chosen} {verdict}: {found.reason}")
    if found.producer_run:
        prefix = "produced by" if found.hit else "the most similar entry was produced by"
        say(f"{prefix} {found.producer_step} of {found.producer_run}")
    for each in found.divergences:
        say(divergences.sentence(each))
    if found.changes:
        rows = [
            (change.field, changed_value(change, "old"), changed_value(change, "new"))
            for change in found.changes
        ]
        say("", *table(("FIELD", "BEFORE", "NOW"), rows, width()))


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    group = typer.Typer(
        help="List, show and invalidate entries of the cache.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("ls")(ls)
    group.command("show")(show)
    group.command("invalidate")(invalidate)
    group.command("savings")(savings)
    app.add_typer(group, name="cache")
    app.command("why")(why)
