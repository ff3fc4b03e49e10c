"""The controller: takes each workflow from its first step to its final phase, as Argo's workflow-controller does."""
