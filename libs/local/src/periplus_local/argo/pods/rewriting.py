"""Declared paths replaced in a step's own words, where the machine has no mount namespaces."""

import re
from collections.abc import Callable

from periplus_local.argo.pods.view import View

# A path starts a word, follows a quote or an operator, or is glued to a one-letter option.
_BEFORE = r"(?:(?<![\w.\-~})\]/*?$%+@\\])|(?<=\s-[A-Za-z])|(?<=^-[A-Za-z])|(?<=file://))"
_AFTER = r"(?=/|[^\w.\-]|\.?$|\.\s)"


def rewriter(view: View) -> Callable[[str], str]:
    """A function that replaces each private path in a text by the folder behind it."""
    moved = {path: to for path, to in view.areas.items() if path != to}
    longest_first = sorted(view.areas, key=len, reverse=True)
    pattern = re.compile(_BEFORE + "(" + "|".join(map(re.escape, longest_first)) + ")" + _AFTER)
    return lambda text: pattern.sub(lambda match: moved.get(match[1], match[1]), text)
