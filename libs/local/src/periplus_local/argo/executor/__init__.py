"""The executor of the local Argo: runs the pods of a workflow as processes of this machine."""
