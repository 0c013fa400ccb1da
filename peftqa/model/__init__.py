"""The frozen model: prompts, loading, adapters, scoring."""
