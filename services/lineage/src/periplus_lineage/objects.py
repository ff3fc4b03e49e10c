"""URIs of objects, as node ids write them: `s3://<bucket>[@<endpoint>]/<key>`.

The endpoint is empty for the default artifact repository's. The name of a bucket contains no "@".
"""

import hashlib

from periplus_model.steps import ObjectRef

_SCHEME = "s3://"


def object_uri(ref: ObjectRef) -> str:
    endpoint = f"@{ref.endpoint}" if ref.endpoint else ""
    return f"{_SCHEME}{ref.bucket}{endpoint}/{ref.key}"


def parse_object_uri(uri: str) -> ObjectRef | None:
    """The object; None if the text is not a URI of an object."""
    repository, _, key = uri.removeprefix(_SCHEME).partition("/")
    bucket, _, endpoint = repository.partition("@")
    return ObjectRef(key=key, bucket=bucket, endpoint=endpoint) if uri.startswith(_SCHEME) and key else None


def object_key(uri: str) -> str:
    """The key of the object with this URI."""
    return uri.removeprefix(_SCHEME).partition("/")[2]


def object_hash(project: str, uri: str) -> bytes:
    """What the tables are indexed by: URIs are up to 1,540 bytes long, and this is 16."""
    return hashlib.blake2b(f"{project}\0{uri}".encode(), digest_size=16).digest()
