"""What the builder raises for what its user can put right; the command line shows the sentence without a traceback."""


class BuildError(Exception):
    """One sentence: what was expected, what came, where, what to do."""
