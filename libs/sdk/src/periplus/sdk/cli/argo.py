"""`periplus argo serve`: the local Argo alone, for Argo's own clients."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from periplus.sdk.cli.options import Format, Output
from periplus.sdk.cli.outcome import Failure
from periplus.sdk.cli.stack import stack_module, teller
from periplus.sdk.cli.text import line

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYS = ("S3_ACCESS_KEY", "S3_SECRET_KEY")


def serve(
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="Its port on 127.0.0.1; default: a free one, kept."),
    ] = 0,
    home: Annotated[
        str,
        typer.Option(
            "--home", help="Where everything is; default: argo in $PERIPLUS_HOME, or in .periplus here."
        ),
    ] = "",
    token_file: Annotated[
        str,
        typer.Option("--token-file", help="Where the token lies; made when absent. Default: in the home."),
    ] = "",
    s3_endpoint: Annotated[
        str,
        typer.Option(
            "--s3-endpoint",
            envvar="S3_ENDPOINT",
            help="A store to use instead of one of its own; S3_ACCESS_KEY and S3_SECRET_KEY are its keys.",
        ),
    ] = "",
    s3_bucket: Annotated[
        str, typer.Option("--s3-bucket", envvar="S3_BUCKET", help="The bucket of that store.")
    ] = "artifacts",
    output: Output = Format.TEXT,
) -> None:
    """Run the local Argo alone, for `argo` and hera on this machine; Ctrl-C stops it in order.

    \b
    Examples:
      periplus argo serve
      periplus argo serve --port 2746 --home ~/.periplus/argo
      periplus argo serve -o json > argo.json &
      S3_ACCESS_KEY=… S3_SECRET_KEY=… periplus argo serve --s3-endpoint 127.0.0.1:9000 --s3-bucket mine
    """

    def ready(serving: Any) -> None:
        found = {
            "address": serving.argo.url,
            "token_file": str(serving.argo.token_file),
            "home": str(serving.home.path),
            "pid": os.getpid(),
        }
        print(*([json.dumps(found)] if output is Format.JSON else _told(found)), sep="\n", flush=True)

    with stack_module(home) as stack:
        bucket = _bucket(stack, s3_endpoint, s3_bucket) if s3_endpoint else None
        stack.serve(stack.ArgoOptions(home, port, token_file, bucket), teller(output), ready)


def _bucket(stack: Any, endpoint: str, name: str) -> Any:
    missing = [key for key in _KEYS if not os.environ.get(key)]
    if missing:
        raise Failure(
            f"{' and '.join(missing)} must be set for the store at {line(endpoint)}",
            where="--s3-endpoint",
            fix="export them, or leave --s3-endpoint out to have a store of its own",
        )
    return stack.Bucket.at(endpoint, *(os.environ[key] for key in _KEYS), name)


def _told(found: dict[str, Any]) -> Iterator[str]:
    """The address, where the token lies, and what leads Argo's own client there."""
    server = found["address"].removeprefix("http://")
    yield f"address  {found['address']}"
    yield f"token    in {found['token_file']}"
    yield "for the argo command and hera, in another terminal:"
    yield f"  export ARGO_SERVER={server} ARGO_HTTP1=true ARGO_SECURE=false ARGO_NAMESPACE=argo KUBECONFIG=/dev/null"
    yield f'  export ARGO_TOKEN="Bearer $(cat {shlex.quote(found["token_file"])})"'
    yield "Ctrl-C stops it"


def add(app: typer.Typer) -> None:
    """Put the commands of this file on the application."""
    group = typer.Typer(help="The local Argo as a thing of its own.", no_args_is_help=True)
    group.callback()(lambda: None)  # without it, a single command would take the place of the group
    group.command("serve")(serve)
    app.add_typer(group, name="argo")
