"""Train one adapter."""
