"""Fetching the data and the model, and checking their digests."""
