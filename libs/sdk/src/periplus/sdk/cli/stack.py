"""`periplus up`, `down` and `doctor`: the stack on this machine."""

from __future__ import annotations

import os
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from periplus.sdk.cli.options import Format, Output
from periplus.sdk.cli.outcome import Exit, Failure
from periplus.sdk.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Home = Annotated[
    str,
    typer.Option(
        "--home", help="The folder of the stack's data; default: $PERIPLUS_HOME, or .periplus here."
    ),
]


Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="Rename a home that was not made here, such as a cloned repository's, and start with a new one.",
    ),
]
TrustHome = Annotated[
    bool,
    typer.Option(
        "--trust-home",
        help="Use a home that was not made here, such as a backup of yours: what is in it runs as you.",
    ),
]


@contextmanager
def stack_module(home: str = "", command: str = "periplus up") -> Iterator[Any]:
    """The module that runs the stack, if it is installed; its errors are raised as Failure.

    `command` is the one that starts what runs in the home.
    """
    option = f" --home {shlex.quote(home)}" if home else ""
    try:
        from periplus_local import stack
    except ImportError as error:
        raise Failure(f"the local stack is not installed: {error}", fix="pip install periplus") from error
    try:
        yield stack
    except stack.HeldError as error:
        down = f"periplus down --home {shlex.quote(str(error.home.path))}"
        raise Failure(str(error), fix=down, code=Exit.REFUSED) from error
    except (stack.PortTakenError, stack.TokenError) as error:
        raise Failure(str(error)) from error
    except stack.UntrustedHomeError as error:
        raise Failure(str(error), fix=f"{command} --fresh{option}", code=Exit.REFUSED) from error
    except (stack.HomeError, stack.ProgramMissingError) as error:
        raise Failure(str(error), fix=f"periplus doctor{option}") from error
    except (stack.ProcessFailedError, TimeoutError) as error:
        raise Failure(str(error), fix=f"periplus doctor{option}", code=Exit.NOT_REACHABLE) from error


def admit(stack: Any, home: Any, *, fresh: bool, trust: bool) -> None:
    """Do what --fresh or --trust-home asks with a home that was not made here, and say so on the standard error."""
    if fresh and trust:
        raise Failure("--fresh and --trust-home exclude each other", fix="leave one of them out")
    if fresh:
        say(f"moved to {stack.start_afresh(home)}; nothing in it is used", error=True)
    if trust:
        stack.trust(home)
        say(
            f"warning: {home.path} is trusted from now on: runs that wait in it go on, with your rights",
            error=True,
        )


def change_printer(output: Format) -> Callable[[Any], None]:
    """A function that prints each state change of a process; on standard error where the output is JSON."""

    def print_change(change: Any) -> None:
        if change.state.name != "STARTING":
            say(change.line(), error=output is Format.JSON)

    return print_change


def up(
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Run in the background, and return when everything is ready."),
    ] = False,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Run steps on the Argo that ARGO_SERVER, ARGO_TOKEN and ARGO_NAMESPACE name, with the store that "
            "S3_ENDPOINT, S3_BUCKET, S3_ACCESS_KEY and S3_SECRET_KEY name. In the foreground only.",
        ),
    ] = False,
    home: Home = "",
    fresh: Fresh = False,
    trust_home: TrustHome = False,
    output: Output = Format.TEXT,
) -> None:
    """Start the stack on this machine: NATS, Postgres, S3, the services and the local Argo. Ctrl-C stops it.

    \b
    Examples:
      periplus up
      periplus up --detach && periplus run pipeline.py
      ARGO_SERVER=https://argo.example:2746 ARGO_NAMESPACE=ml S3_ENDPOINT=… periplus up --cluster
    """
    from periplus.sdk.cli.document import print_json

    def ready(running: Any) -> None:
        if output is Format.JSON:
            print_json({"home": str(running.home.path), "addresses": dict(running.addresses)})
        else:
            say("ready; Ctrl-C stops everything")

    with stack_module(home) as stack:
        elsewhere = _cluster(stack) if cluster else None
        if elsewhere and detach:
            raise Failure("--cluster runs in the foreground", fix="leave --detach out")
        admit(stack, stack.locate(home or None), fresh=fresh, trust=trust_home)
        if not detach:
            stack.up(home or None, change_printer(output), ready, elsewhere)
            return
        holder = stack.detach(home or None, change_printer(output))
    if output is Format.JSON:
        print_json(
            {
                "pid": holder.pid,
                "home": str(stack.locate(home or None).path),
                "addresses": dict(holder.addresses),
            }
        )
    else:
        say(f"ready; process {holder.pid} runs it until `periplus down`")


def _cluster(stack: Any) -> Any:
    try:
        return stack.Cluster.from_environment(os.environ)
    except stack.NoClusterError as error:
        raise Failure(str(error), fix="export them, then `periplus up --cluster`") from error


def down(home: Home = "", output: Output = Format.TEXT) -> None:
    """Stop the stack, from any terminal.

    \b
    Example:
      periplus down
    """
    from periplus.sdk.cli.document import print_json

    with stack_module(home) as stack:
        holder = stack.down(home or None)
    if output is Format.JSON:
        print_json({"stopped": holder.pid if holder else None})
    else:
        say(f"stopped {holder.describe()}" if holder else "nothing was running")


def doctor(home: Home = "", output: Output = Format.TEXT) -> None:
    """Check the stack, and print a fix for each problem. Looks at processes, versions, ports, disk and clock.

    \b
    Examples:
      periplus doctor
      periplus doctor -o json
    """
    with stack_module(home) as stack:
        findings = stack.doctor(home or None)
    well = all(finding.ok for finding in findings)
    if output is Format.JSON:
        from dataclasses import asdict

        from periplus.sdk.cli.document import print_json

        print_json({"ok": well, "findings": [asdict(finding) for finding in findings]})
    else:
        say(*(finding.line() for finding in findings))
    raise typer.Exit(Exit.OK if well else Exit.FAILED)


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("doctor")(doctor)
