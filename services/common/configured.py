"""Settings of this process, or one clear line about the variable that is off."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from models.errors import InputError
from services.common.settings import Settings


def read_settings(**chosen: Any) -> Settings:
    """From LESIONLENS_* and .env; what is chosen here (and not None) wins. Raises InputError."""
    try:
        return Settings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(
            first["msg"].lower(),
            code="wrong_setting",
            field=f"LESIONLENS_{name.upper()}",
            found=repr(first.get("input"))[:80],
        ) from None
