"""sprig's functions on file paths, and urlParse and urlJoin."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression import value
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import MAP, TEXT, Table, declare

TABLE: Table = {}


@declare(TABLE, "base", TEXT)
@declare(TABLE, "osBase", TEXT)
def _base(_: Budget, path: str) -> str:
    return posixpath.basename(path.rstrip("/")) or ("/" if path else ".")


@declare(TABLE, "dir", TEXT)
@declare(TABLE, "osDir", TEXT)
def _dir(_: Budget, path: str) -> str:
    return _cleaned(posixpath.dirname(path))


@declare(TABLE, "clean", TEXT)
@declare(TABLE, "osClean", TEXT)
def _clean(_: Budget, path: str) -> str:
    return _cleaned(path)


def _cleaned(path: str) -> str:
    cleaned = posixpath.normpath(path) if path else "."
    return cleaned[1:] if cleaned.startswith("//") else cleaned


@declare(TABLE, "ext", TEXT)
@declare(TABLE, "osExt", TEXT)
def _ext(_: Budget, path: str) -> str:
    name = path[path.rfind("/") + 1 :]
    return name[name.rfind(".") :] if "." in name else ""


@declare(TABLE, "isAbs", TEXT)
@declare(TABLE, "osIsAbs", TEXT)
def _is_abs(_: Budget, path: str) -> bool:
    return path.startswith("/")


_ADDRESS = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?P<rest>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_AUTHORITY = re.compile(r"//(?:(?P<userinfo>[^/]*)@)?(?P<host>[^/]*)(?P<path>.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s\[\]<>\"%:]*)(?::[0-9]*)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@declare(TABLE, "urlParse", TEXT)
def _parse(_: Budget, text: str) -> dict[str, str]:
    match = _ADDRESS.fullmatch(text)
    if match is None or _CONTROL.search(text) or text.startswith(":"):
        raise ExpressionError("", f"unable to parse url: {text[:60]!r}")
    scheme, rest = (match["scheme"] or "").lower(), match["rest"]
    inside = _AUTHORITY.fullmatch(rest)
    opaque = rest if scheme and not rest.startswith("/") else ""
    host = inside["host"] if inside else ""
    path = "" if opaque else inside["path"] if inside else rest
    first = path.partition("/")[0]
    colon = ":" in first and not scheme and not inside
    if not _HOST.fullmatch(host) or _BAD_ESCAPE.search(path + (match["fragment"] or "")) or colon:
        raise ExpressionError("", f"unable to parse url: {text[:60]!r}")
    return {
        "scheme": scheme,
        "host": host,
        "hostname": re.sub(r":[0-9]*\Z", "", host).strip("[]"),
        "path": unquote(path),
        "query": match["query"] or "",
        "opaque": opaque,
        "fragment": unquote(match["fragment"] or ""),
        "userinfo": (inside["userinfo"] or "") if inside else "",
    }


@declare(TABLE, "urlJoin", MAP)
def _join(budget: Budget, parts: Mapping[str, Any]) -> str:
    def part(name: str) -> str:
        argument = parts.get(name, "")
        if not isinstance(argument, str):
            raise ExpressionError(
                "", f"unable to parse {name} key, must be of type string, but {value.kind(argument)} found"
            )
        return argument

    text = f"{part('scheme')}:" if part("scheme") else ""
    if part("opaque"):
        text += part("opaque")
    else:
        path = quote(part("path"), safe="/$&+,:;=@!'()*~")
        user, host = part("userinfo"), part("host")
        if user or host or (part("scheme") and path.startswith("//")):
            text += "//" + (f"{user}@" if user else "") + host
            path = f"/{path}" if path and host and not path.startswith("/") else path
        elif not text and ":" in path.partition("/")[0]:
            path = f"./{path}"
        text += path
    query, fragment = part("query"), part("fragment")
    text += f"?{query}" if query else ""
    written = quote(fragment, safe="/$&+,:;=@!'()*~?")
    return budget.text(f"{text}#{written}" if fragment else text)
