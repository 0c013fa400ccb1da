"""The one kind of error that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend. The message is one sentence: what is wrong, where, and what to do."""
