"""The fast path: a frozen T5 computes the same function in less time. It is imported only if `model.fast` is on.

A first reading may skip it. `t5` replaces parts of the model by the operations in `kernels`.
"""
