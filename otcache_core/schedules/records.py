"""What all stored records share: immutable, strict about unknown fields, finite numbers only."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """Base of everything that is stored: immutable, and unknown fields are errors, not silently dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")
