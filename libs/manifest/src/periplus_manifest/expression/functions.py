"""Every function that an expression may call, by its full name."""

from __future__ import annotations

from . import builtin, builtinlist, builtintext, clock, sprig
from .function import Table

FUNCTIONS: Table = {**builtin.TABLE, **builtinlist.TABLE, **builtintext.TABLE, **clock.TABLE}
FUNCTIONS |= {f"sprig.{name}": function for name, function in sprig.TABLE.items()}
