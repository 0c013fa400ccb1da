"""Named sets of parameters, and what runs them: `python -m experiments NAME`, `python -m experiments.runs`."""
