"""TOML documents of lockfiles: parsing, and access with checks of the types."""

import tomllib
from typing import Any

from periplus_common.errors import Invalid

Table = dict[str, Any]


def parse_toml(content: bytes) -> Table:
    """The document. Raises `Invalid`, with line and column if it is not TOML."""
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise Invalid(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise Invalid("is nested too deeply") from error
    except ValueError as error:
        raise Invalid(f"is not TOML: {str(error)[:200]}") from error


def as_table(value: object, where: str) -> Table:
    """The value, which must be a table. Raises `Invalid`."""
    if not isinstance(value, dict):
        raise Invalid(f"{where} is not a table")
    return value


def get_tables(document: Table, key: str, where: str = "") -> list[Table]:
    """The array of tables under `key`; empty if the key is absent. Raises `Invalid`."""
    found = document.get(key, [])
    path = f"{where}.{key}" if where else key
    if not isinstance(found, list):
        raise Invalid(f"{path} is not an array")
    return [as_table(element, f"{path}[{index}]") for index, element in enumerate(found)]
