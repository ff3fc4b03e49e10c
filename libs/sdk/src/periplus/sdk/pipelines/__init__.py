"""@step and @pipeline, and the graph of tasks that the calls of a pipeline's function leave behind."""
