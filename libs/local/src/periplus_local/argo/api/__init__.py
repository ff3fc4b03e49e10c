"""The REST API of the local Argo, as argo-server gives it."""
