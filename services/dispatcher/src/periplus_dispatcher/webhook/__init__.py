"""The admission webhook: Kubernetes asks it about Workflows that are created."""
