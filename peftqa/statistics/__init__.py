"""Tests, intervals, power, flags, and the comparison made of them."""
