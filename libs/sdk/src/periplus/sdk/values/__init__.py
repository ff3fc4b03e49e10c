"""Values that pass from step to step: as JSON in a parameter or as a file, by what their annotation declares."""
