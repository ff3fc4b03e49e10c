"""The graph of steps and artifacts, and its traversal."""
