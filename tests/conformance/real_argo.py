"""The real Argo that the environment names, and its artifact repository.

ARGO_SERVER and ARGO_TOKEN name the server, ARGO_NAMESPACE where workflows run ("argo"). S3_ENDPOINT, S3_BUCKET,
S3_ACCESS_KEY and S3_SECRET_KEY name its repository; without them, what the manifests read must be there already.
"""

import os

from minio import Minio

from periplus_local.argo.testing import Client

from .s3_store import put_model


def real_argo() -> Client:
    """A client of the server, after the artifact that manifests read was put into its repository."""
    if repository := real_repository():
        put_model(*repository)
    server, token = os.environ["ARGO_SERVER"].rstrip("/"), os.environ.get("ARGO_TOKEN", "")
    return Client(server, token, os.environ.get("ARGO_NAMESPACE", "argo"))


def real_repository() -> tuple[Minio, str] | None:
    """A client of the repository, and the bucket; None when the environment names none."""
    if not (endpoint := os.environ.get("S3_ENDPOINT")):
        return None
    key, secret = os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"]
    return Minio(endpoint, key, secret, secure=False), os.environ["S3_BUCKET"]
