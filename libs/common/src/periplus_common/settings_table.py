"""The table of all settings in docs/operations.md: `python -m periplus_common.settings_table DOCUMENT MODULE...`.

Each MODULE has a class `Settings`. The docstring below a field is its description.
"""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from periplus_common.markdown import replace_between

BEGIN, END = "<!-- settings: written by `make settings` -->", "<!-- /settings -->"


def table(settings: type[BaseSettings]) -> str:
    """The environment variables of a service as a Markdown table."""
    descriptions = dict(_descriptions(settings))
    prefix = settings.model_config.get("env_prefix", "")
    lines = ["| Variable | Default | |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        description = " ".join(descriptions.get(name, "").split())
        lines.append(f"| `{prefix}{name.upper()}` | {_default(field)} | {description} |")
    return "\n".join(lines)


def with_tables(text: str, modules: list[str]) -> str:
    """A document with the tables between its two markers. Raises `ValueError` if it has no markers."""
    sections = [
        f"### {module.partition('.')[0].removeprefix('periplus_')}\n\n{table(importlib.import_module(module).Settings)}\n\n"
        for module in modules
    ]
    return replace_between(text, BEGIN, END, "\n\n" + "".join(sections))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, timedelta):
        return f"{value.days}" if value >= timedelta(days=1) else f"{value.total_seconds():g}"
    if value is None:
        return "forever"  # retention's `KeepFor` is the only setting that may be None
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" for each in value) or "empty"
    text = str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
    return text or "empty"


def _descriptions(settings: type[BaseSettings]) -> Iterator[tuple[str, str]]:
    """Name and docstring of each field, those of base classes first."""
    for cls in reversed(settings.__mro__):
        if not issubclass(cls, BaseSettings) or cls is BaseSettings:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(body, ast.ClassDef)
        for field, docstring in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(docstring, ast.Expr)
                and isinstance(docstring.value, ast.Constant)
            ):
                yield field.target.id, str(docstring.value.value)


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(with_tables(document.read_text(), sys.argv[2:]))
