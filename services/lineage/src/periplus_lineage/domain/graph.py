"""The graph: what its nodes are called."""


def object_name(endpoint: str, bucket: str, key: str) -> str:
    """A place, as node ids write it. `endpoint` is empty for the default store: no bucket's name holds an "@"."""
    return f"s3://{bucket}{'@' + endpoint if endpoint else ''}/{key}"


def object_key(name: str) -> str:
    """The key of an object, from its name."""
    return name.removeprefix("s3://").partition("/")[2]
