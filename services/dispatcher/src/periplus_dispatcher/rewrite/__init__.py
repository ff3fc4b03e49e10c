"""From the verdicts of the cache to a plan, and from a plan to the manifest that Argo runs."""
