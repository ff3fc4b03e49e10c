"""What a failed step's message means, where Argo's words do not say what to do."""

import re

_EXPLANATIONS = (
    (
        re.compile(r'exec: "?python3?"?: (executable file )?not found'),
        "the image has no Python: name another one",
    ),
    (
        re.compile(r"artifact periplus-code failed to load: .*not exist"),
        "the code of the pipeline is not in the artifact repository: `periplus run` of its file stores it",
    ),
)


def explained(message: str) -> str:
    """The message of a node, with what to do where it is known."""
    for pattern, explanation in _EXPLANATIONS:
        if pattern.search(message):
            return f"{message} ({explanation})"
    return message
