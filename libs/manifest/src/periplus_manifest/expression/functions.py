"""Every function that an expression may call, by its full name."""

from __future__ import annotations

from . import builtin, builtintext, clock, sprig
from .function import Table

FUNCTIONS: Table = {**builtin.TABLE, **builtintext.TABLE, **clock.TABLE}
FUNCTIONS |= {f"sprig.{name}": function for name, function in sprig.TABLE.items()}
