"""`periplus argo serve`: the local Argo without the services, for Argo's own clients."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from periplus.sdk.cli.options import Format, Output
from periplus.sdk.cli.outcome import Failure
from periplus.sdk.cli.stack import Fresh, TrustHome, admit, change_printer, stack_module
from periplus.sdk.cli.terminal import say, say_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYS = ("S3_ACCESS_KEY", "S3_SECRET_KEY")


def serve(
    port: Annotated[
        int,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="The port on 127.0.0.1; default: a free one, the same with each start.",
        ),
    ] = 0,
    home: Annotated[
        str,
        typer.Option(
            "--home", help="The folder of its data; default: argo in $PERIPLUS_HOME, or in .periplus here."
        ),
    ] = "",
    token_file: Annotated[
        str,
        typer.Option(
            "--token-file",
            help="The file of the token, written if it does not exist; default: one in the home, new at each start.",
        ),
    ] = "",
    s3_endpoint: Annotated[
        str,
        typer.Option(
            "--s3-endpoint",
            envvar="S3_ENDPOINT",
            help="An S3 store to use in place of its own; S3_ACCESS_KEY and S3_SECRET_KEY are its keys, "
            "S3_CA_FILE has the authorities of an https:// one.",
        ),
    ] = "",
    s3_bucket: Annotated[
        str, typer.Option("--s3-bucket", envvar="S3_BUCKET", help="The bucket of that store.")
    ] = "artifacts",
    fresh: Fresh = False,
    trust_home: TrustHome = False,
    output: Output = Format.TEXT,
) -> None:
    """Run the local Argo without the services, for `argo` and hera on this machine. Ctrl-C stops it.

    \b
    Examples:
      periplus argo serve
      periplus argo serve --port 2746 --home ~/.periplus/argo
      periplus argo serve -o json > argo.json &
      S3_ACCESS_KEY=… S3_SECRET_KEY=… periplus argo serve --s3-endpoint 127.0.0.1:9000 --s3-bucket mine
    """

    def ready(serving: Any) -> None:
        document = {
            "address": serving.argo.url,
            "token_file": str(serving.argo.token_file),
            "home": str(serving.home.path),
            "pid": os.getpid(),
        }
        if output is Format.JSON:
            say_json(json.dumps(document))
        else:
            say(*_lines(document))

    with stack_module(home, "periplus argo serve") as stack:
        bucket = _bucket(stack, s3_endpoint, s3_bucket) if s3_endpoint else None
        options = stack.ArgoOptions(home, port, token_file, bucket)
        admit(stack, options.located_home(), fresh=fresh, trust=trust_home)
        stack.serve(options, change_printer(output), ready)


def _bucket(stack: Any, endpoint: str, name: str) -> Any:
    missing = [key for key in _KEYS if not os.environ.get(key)]
    if missing:
        raise Failure(
            f"{' and '.join(missing)} must be set for the store at {endpoint}",
            where="--s3-endpoint",
            fix="export them, or leave out --s3-endpoint to use its own store",
        )
    return stack.Bucket.at(
        endpoint, *(os.environ[key] for key in _KEYS), name, os.environ.get("S3_CA_FILE", "")
    )


def _lines(document: dict[str, Any]) -> Iterator[str]:
    """The address, the file of the token, and the variables for Argo's own client."""
    server = document["address"].removeprefix("http://")
    yield f"address  {document['address']}"
    yield f"token    in {document['token_file']}"
    yield "for the argo command and hera, in another terminal:"
    yield f"  export ARGO_SERVER={server} ARGO_HTTP1=true ARGO_SECURE=false ARGO_NAMESPACE=argo KUBECONFIG=/dev/null"
    yield f'  export ARGO_TOKEN="Bearer $(cat {shlex.quote(document["token_file"])})"'
    yield "Ctrl-C stops it"


def add(app: typer.Typer) -> None:
    """Add the commands of this file to the application."""
    group = typer.Typer(help="The local Argo without the services.", no_args_is_help=True)
    group.callback()(lambda: None)  # without it, a single command would take the place of the group
    group.command("serve")(serve)
    app.add_typer(group, name="argo")
