"""A pipeline as an Argo manifest, with the identity and the archive of the code that its steps run."""
