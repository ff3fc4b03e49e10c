"""From the state of Workflows to events: statuses of steps, open gates and their answers, ends of runs."""
