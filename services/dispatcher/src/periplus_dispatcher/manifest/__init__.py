"""From a manifest to the steps that it calls: read, check, expand, and describe each template."""
