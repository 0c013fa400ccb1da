"""Named sets of parameters, and what runs them: `python -m experiments NAME`, `python -m experiments.runs`."""

import stages  # noqa: F401  how a program of this project ends: before the imports that take time
