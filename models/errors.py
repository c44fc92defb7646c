"""Every error that a user can cause or must act on, with a code, an HTTP status and a safe text.

    LensError
    +-- InputError (422)        the data are not what the field needs
    |   +-- TooLarge (413)
    |   +-- UnsupportedMedia (415)
    +-- CohortError (422)       one or many faults in a cohort
    +-- BundleError (500)       a bundle that must not be used
    +-- NotFound (404)
    +-- Unavailable (503)       a part is down; carries Retry-After
    +-- DeadlineExceeded (504)  the caller's own time limit passed first

The message never holds data, paths of the server or a traceback: it is shown as it is.
"""

from __future__ import annotations

from collections.abc import Sequence


class LensError(Exception):
    """A fault that is shown to a person in one line: field, what was found, what was expected."""

    code = "error"
    status = 500

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        found: str | None = None,
        expected: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.field = field
        self.found = found
        self.expected = expected

    @property
    def line(self) -> str:
        """The one line that a CLI prints."""
        parts = [f"{self.field}: {self.message}" if self.field else self.message]
        if self.found is not None:
            parts.append(f"found {self.found}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        return "; ".join(parts)


class InputError(LensError):
    """The caller's data or parameters cannot be used."""

    code = "invalid_input"
    status = 422


class TooLarge(InputError):
    """A body or a decompressed volume beyond the configured limit."""

    code = "too_large"
    status = 413


class UnsupportedMedia(InputError):
    """A media type that is not accepted; pickle never is."""

    code = "unsupported_media_type"
    status = 415


class CohortError(LensError):
    """Faults in a cohort, each naming its lesion and field."""

    code = "invalid_cohort"
    status = 422

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class BundleError(LensError):
    """A bundle that is damaged, incomplete, of another schema, or numerically off."""

    code = "bundle_refused"
    status = 500


class NotFound(LensError):
    """No such job, model or map."""

    code = "not_found"
    status = 404


class Unavailable(LensError):
    """A part that the request needs is down; try again after ``retry_after`` seconds."""

    code = "unavailable"
    status = 503

    def __init__(self, message: str, *, retry_after: int = 5, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class DeadlineExceeded(LensError):
    """The caller's deadline passed before the work was done; it is not run, or not run further."""

    code = "deadline_exceeded"
    status = 504
