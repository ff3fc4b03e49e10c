"""The functions that expr-lang itself has, and Argo's own (asInt, asFloat, toJson, jsonpath)."""

from __future__ import annotations

from periplus_manifest.expression.function import Table

from . import lists, texts, times, values

TABLE: Table = {**values.TABLE, **lists.TABLE, **texts.TABLE, **times.TABLE}
