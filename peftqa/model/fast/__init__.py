"""The fast path, which a first reading may skip: a frozen T5 computes the same function in less time."""
