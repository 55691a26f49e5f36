"""Errors that a person may see: what happened, and what to do next.

Only the command line and the HTTP server turn them into text.
"""


class AcclimateError(Exception):
    """Root of all expected failures.

    `message` says what happened and to what; `hint` says what to do next.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(AcclimateError):
    """A setting is missing, unknown or out of range."""


class HomeError(AcclimateError):
    """The home folder is missing, foreign, locked or not usable."""


class Detached(HomeError):
    """The home's drive is gone for now; nothing may be written until it is back."""


class StoreError(AcclimateError):
    """The database or the index cannot do what was asked."""


class SourceError(AcclimateError):
    """A source or one of its files cannot be used."""


class NotFound(AcclimateError):
    """No such example, adapter, message or source."""


class ModelError(AcclimateError):
    """A model file is missing, damaged or of a kind that is not supported."""


class AdapterError(AcclimateError):
    """An adapter is damaged, of another base, or cannot be exported."""


class EngineError(AcclimateError):
    """The serving engine cannot load, decode or accept a request."""


class RoundError(AcclimateError):
    """A round cannot start or its worker failed."""
