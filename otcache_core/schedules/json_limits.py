"""What a stranger's JSON may cost: a file of 16 MiB can otherwise take gigabytes and minutes before it is refused."""

import pydantic

# Stops a list at its first bad item. Without it every one of a million bad items becomes an error of its own.
FIRST_ERROR = {"fail_fast": True} if hasattr(pydantic, "FailFast") else {}  # since pydantic 2.8; options of a Field
MOST_VALUES = 300_000  # a grid of 1000 steps with 150 budgets has 240,000
MOST_NAMES = 60_000


def check_size(data: bytes | str, values: int = MOST_VALUES, names: int = MOST_NAMES) -> None:
    """Raise `ValueError` for JSON of more values or names than anything of ours has; it is counted, not parsed."""
    comma, colon = (b",", b":") if isinstance(data, bytes) else (",", ":")
    if data.count(comma) > values or data.count(colon) > names:
        raise ValueError("it holds more values than anything that is saved here")
