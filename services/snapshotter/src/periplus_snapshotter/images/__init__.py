"""Images: their names, their manifests, and the digests that their tags point to."""
