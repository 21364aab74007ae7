"""The contracts that a process knows: those that come along, and those of the user's own modules."""

from importlib import import_module
from typing import Final

from penstock.core.errors import Misconfigured, PenstockError
from penstock.core.settings import Settings

BUILT_IN: Final = tuple(
    f"penstock.core.jobs.{name}" for name in ("email", "image", "ai", "webhook", "bulk", "redrive")
)


def load_jobs(settings: Settings) -> None:
    """Import them, so that `@contract` enters them. Raises Misconfigured, in one line, for a module
    that cannot be imported."""
    for name in (*BUILT_IN, *settings.jobs):
        try:
            import_module(name)
        except PenstockError as error:
            raise Misconfigured(f"PENSTOCK_JOBS: {name}: {error}") from error
        except Exception as error:
            raise Misconfigured(
                f"PENSTOCK_JOBS: {name} cannot be imported: {type(error).__name__}: {error}"
            ) from error
