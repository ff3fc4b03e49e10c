"""A service's program: its arguments, and settings that are missing or invalid."""

import os
from contextlib import asynccontextmanager

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from periplus_common import private_process
from periplus_common.program import main, read
from periplus_common.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True):
    model_config = SettingsConfigDict(env_prefix="PARROT_")

    size: int = Field(default=1, ge=1)


@asynccontextmanager
async def app(settings: Settings):
    raise AssertionError(f"opened with {settings}")
    yield


def run(*arguments: str) -> None:
    main("parrot", Settings, app, migrations=[], arguments=arguments)


def test_missing_and_invalid_settings_are_named_by_their_variables(monkeypatch, capsys) -> None:
    monkeypatch.setenv("PARROT_SIZE", "0")
    monkeypatch.setenv("PARROT_TOKEN", "secret")
    with pytest.raises(SystemExit, match="2"):
        run()
    assert capsys.readouterr().err.splitlines() == [
        "error: PARROT_POSTGRES_DSN: is not set",
        "error: PARROT_NATS_URL: is not set",
        "error: PARROT_GRPC_ADDRESS: is not set",
        "error: PARROT_SIZE: Input should be greater than or equal to 1",
    ]


def test_a_migration_needs_the_database_only(monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("migrate")
    assert capsys.readouterr().err == "error: PARROT_POSTGRES_DSN: is not set\n"


def test_a_migration_of_a_database_that_can_not_be_reached_says_so_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setenv(
        "PARROT_POSTGRES_DSN", "postgresql://parrot@127.0.0.1:9/parrot"
    )  # discard: nobody listens
    with pytest.raises(SystemExit, match="1"):
        run("migrate")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: PARROT_POSTGRES_DSN: Postgres is unavailable: ")


def test_other_arguments_print_the_usage(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("serve")
    assert "usage: python -m periplus_parrot [migrate]" in capsys.readouterr().err
    run("--help")
    assert "PARROT_" in capsys.readouterr().out


def test_with_all_settings_the_app_is_opened(monkeypatch) -> None:
    for name in ("POSTGRES_DSN", "NATS_URL", "GRPC_ADDRESS", "TOKEN"):
        monkeypatch.setenv(f"PARROT_{name}", "x")
    monkeypatch.setenv("PARROT_SIZE", "7")
    with pytest.raises(AssertionError, match=r"opened with .*size=7"):
        run()


def test_a_setting_comes_from_the_parents_descriptor_the_environment_or_the_folder_of_secrets(
    monkeypatch, tmp_path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, value in {"POSTGRES_DSN": "folder", "NATS_URL": "folder", "TOKEN": "folder\n"}.items():
        (secrets / f"PARROT_{name}").write_text(value)
    monkeypatch.setenv("PERIPLUS_SECRETS_DIR", str(secrets))
    for name in ("NATS_URL", "GRPC_ADDRESS", "POSTGRES_DSN"):
        monkeypatch.setenv(f"PARROT_{name}", "environment")
    with private_process.passing({"PARROT_POSTGRES_DSN": "descriptor"}) as descriptor:
        monkeypatch.setenv(private_process.VARIABLE, str(os.dup(descriptor)))
        found = read(Settings, "PARROT_")
    assert found.postgres_dsn.get_secret_value() == "descriptor"
    assert found.nats_url.get_secret_value() == "environment"
    assert found.token.get_secret_value() == "folder"


def test_a_folder_of_secrets_that_is_none_and_a_descriptor_that_is_none_are_named(
    monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.setenv("PERIPLUS_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match="2"):
        run()
    assert capsys.readouterr().err == f"error: PERIPLUS_SECRETS_DIR: {tmp_path}/none is not a directory\n"
    monkeypatch.setenv("PERIPLUS_SECRETS_DIR", "")
    monkeypatch.setenv("PERIPLUS_SECRETS_FD", "987")
    with pytest.raises(SystemExit, match="2"):
        run()
    assert capsys.readouterr().err.startswith("error: PERIPLUS_SECRETS_FD: no settings can be read from it: ")
