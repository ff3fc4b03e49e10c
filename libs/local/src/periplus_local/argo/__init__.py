"""The local Argo: Argo's REST API on loopback, running manifests as processes of this machine."""
