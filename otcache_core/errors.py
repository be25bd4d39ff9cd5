"""The one exception that users are meant to read."""


class OTCacheError(ValueError):
    """Bad input, said in one sentence that names what is wrong and how to mend it."""


class NotFiniteError(OTCacheError):
    """A run whose velocities are no numbers any more (NaN or infinity)."""
