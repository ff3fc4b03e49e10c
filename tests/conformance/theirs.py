"""The Argo that the environment names, and the store of its artifacts.

ARGO_SERVER and ARGO_TOKEN name the server, ARGO_NAMESPACE where workflows run ("argo"). S3_ENDPOINT, S3_BUCKET,
S3_ACCESS_KEY and S3_SECRET_KEY name its store; without them, what the manifests read must be there already.
"""

import os

from minio import Minio

from periplus_local.argo.testing import Client

from .stores import put_model


def theirs() -> Client:
    """A client of the server, once its store holds what the manifests read."""
    if held := their_store():
        put_model(*held)
    server, token = os.environ["ARGO_SERVER"].rstrip("/"), os.environ.get("ARGO_TOKEN", "")
    return Client(server, token, os.environ.get("ARGO_NAMESPACE", "argo"))


def their_store() -> tuple[Minio, str] | None:
    """The store that the environment names, and the bucket in it; None when it names none."""
    if not (endpoint := os.environ.get("S3_ENDPOINT")):
        return None
    key, secret = os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"]
    return Minio(endpoint, key, secret, secure=False), os.environ["S3_BUCKET"]
