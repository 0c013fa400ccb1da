"""Predictions, metrics, curves and baselines."""
