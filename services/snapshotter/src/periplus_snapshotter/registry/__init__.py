"""Registries of images, by their HTTP API (OCI distribution-spec). The only package that opens connections to hosts that an image names."""
