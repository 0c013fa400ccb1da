"""Named sets of parameters, and what runs them: `python -m experiments NAME`, `python -m experiments.runs`."""

import stages  # noqa: F401  first, because it lets Ctrl-C end the imports with a sentence
