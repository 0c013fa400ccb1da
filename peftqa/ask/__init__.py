"""A trained adapter answers one question, a table of them, or what a page on this machine asks (docs/use.md)."""
