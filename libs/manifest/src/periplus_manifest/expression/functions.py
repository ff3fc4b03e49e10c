"""Every function that an expression may call, by its full name."""

from __future__ import annotations

from dataclasses import replace

from . import builtin, sprig
from .function import Table

FUNCTIONS: Table = builtin.TABLE | {
    f"sprig.{name}": replace(function, name=f"sprig.{name}", nil_is_zero=True)
    for name, function in sprig.TABLE.items()
}
