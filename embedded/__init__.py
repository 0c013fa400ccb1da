"""Synthetic abstracts and the small T5 pretrained on them: what `make demo` needs and no network can refuse."""
