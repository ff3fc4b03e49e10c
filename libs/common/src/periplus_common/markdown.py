"""Documents that are in part written from the code."""


def replace_between(text: str, begin: str, end: str, content: str) -> str:
    """The text with `content` between its two markers. Raises `ValueError` if it does not have both."""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the document has no {begin} and {end}")
    return f"{before}{begin}{content}{end}{after}"
