"""`python -m periplus_<service> [migrate]`: what the programs of all services have in common."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from periplus_common import postgres, private_process, runtime, telemetry
from periplus_common.errors import PeriplusError
from periplus_common.settings import DatabaseSettings, ServiceSettings

S = TypeVar("S", bound=ServiceSettings)
B = TypeVar("B", bound=BaseSettings)

USAGE = """usage: python -m periplus_{service} [migrate]

Without an argument: serve until SIGTERM or SIGINT. migrate: bring the database's schema up to date, then exit.
Settings are environment variables {prefix}…, or files of these names in the folder PERIPLUS_SECRETS_DIR, listed in
docs/operations.md."""

SECRETS_DIR = "PERIPLUS_SECRETS_DIR"


def main(
    service: str,
    settings: type[S],
    app: Callable[[S], AbstractAsyncContextManager[object]],
    *,
    migrations: Sequence[str],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a service or its migrations. `migrations` are the packages whose SQL files are applied, in order.

    Exits with 2 for other arguments and for settings that are missing or invalid, which are named by their variables, and
    with 1 if the database can not be migrated.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    prefix = settings.model_config.get("env_prefix", "")
    usage = USAGE.format(service=service, prefix=prefix)
    if list(arguments) in (["--help"], ["-h"]):
        print(usage)  # noqa: T201 - the program's output
    elif list(arguments) == ["migrate"]:
        dsn = read(DatabaseSettings, prefix).postgres_dsn.get_secret_value()
        telemetry.start(service)
        try:
            asyncio.run(postgres.migrate(dsn, *migrations))
        except PeriplusError as error:
            print(f"error: {prefix}POSTGRES_DSN: {error}", file=sys.stderr)  # noqa: T201
            sys.exit(1)
    elif not arguments:
        given = read(settings, prefix)
        telemetry.start(service, otlp_endpoint=given.otlp_endpoint)
        runtime.run(app(given))
    else:
        print(usage, file=sys.stderr)  # noqa: T201
        sys.exit(2)


def read(settings: type[B], prefix: str) -> B:
    """Settings from the parent's descriptor, the environment and the folder of secrets, the first that has one.

    Exits with 2 and a line for each variable that is missing or invalid.
    """
    folder = os.environ.get(SECRETS_DIR) or None
    if folder and not Path(folder).is_dir():
        _refuse([f"{SECRETS_DIR}: {folder} is not a directory"])
    try:
        passed = private_process.take(os.environ)
    except (OSError, ValueError) as error:
        _refuse([f"{private_process.VARIABLE}: no settings can be read from it: {error}"])
    given: dict[str, Any] = {name.removeprefix(prefix).lower(): value for name, value in passed.items()}
    try:
        return settings(_env_prefix=prefix, _secrets_dir=folder, **given)
    except ValidationError as error:
        _refuse(_problem(prefix, each) for each in error.errors(include_input=False, include_url=False))


def _problem(prefix: str, problem: Mapping[str, Any]) -> str:
    variable = prefix + "_".join(map(str, problem["loc"])).upper()
    return f"{variable}: {'is not set' if problem['type'] == 'missing' else problem['msg']}"


def _refuse(problems: Iterable[str]) -> NoReturn:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
