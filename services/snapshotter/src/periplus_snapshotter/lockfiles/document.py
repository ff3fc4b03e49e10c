"""TOML as lockfiles use it: read strictly, and looked into without surprises."""

import tomllib
from typing import Any

from periplus_common.errors import Invalid

Table = dict[str, Any]


def read(content: bytes) -> Table:
    """The document. Raises `Invalid` with line and column where it is no TOML."""
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise Invalid(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise Invalid("is nested too deeply") from error
    except ValueError as error:
        raise Invalid(f"is no TOML: {str(error)[:200]}") from error


def table(value: object, where: str) -> Table:
    """`value`, which must be a table."""
    if not isinstance(value, dict):
        raise Invalid(f"{where} is no table")
    return value


def tables(document: Table, key: str, where: str = "") -> list[Table]:
    """The array of tables under `key`; empty where there is none."""
    found = document.get(key, [])
    path = f"{where}.{key}" if where else key
    if not isinstance(found, list):
        raise Invalid(f"{path} is no array")
    return [table(one, f"{path}[{index}]") for index, one in enumerate(found)]
