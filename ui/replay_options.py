"""What several commands of `penstock replay` take."""

from typing import Annotated

import msgspec
import typer

from penstock.core.errors import Refused
from penstock.core.settings import Settings, read_settings
from penstock.ui.embedded import socket_path, with_server

ArchiveUrl = Annotated[
    str,
    typer.Option(
        "--archive", help="An archive to read with the log: s3://…, a folder; else PENSTOCK_ARCHIVE_URL."
    ),
]


def asked_settings(archive: str = "") -> Settings:
    """Settings from the environment, overruled by what was given as an option. Raises Refused: no server is
    named, and none runs in the data folder."""
    settings = read_settings()
    if not settings.redis_url and not socket_path(settings).exists():
        raise Refused(
            f"no server runs in {settings.data_dir}: start one with `penstock up`, or name one with "
            "PENSTOCK_REDIS_URL"
        )
    settings = with_server(settings)
    return msgspec.structs.replace(settings, archive_url=archive) if archive else settings
