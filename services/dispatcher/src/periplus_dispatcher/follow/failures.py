"""The message of a step: Argo's words, with what to do where these do not say it."""

import re

from periplus_dispatcher.observed.workflow import MAX_MESSAGE_CHARACTERS

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
    """The message of a node, with what to do where it is known. Any step can leave one, with any character, by
    `/dev/termination-log`: Postgres takes no U+0000.
    """
    message = message.replace("\0", "\N{REPLACEMENT CHARACTER}")[:MAX_MESSAGE_CHARACTERS]
    for pattern, explanation in _EXPLANATIONS:
        if pattern.search(message):
            return f"{message} ({explanation})"
    return message
