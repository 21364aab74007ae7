"""What several commands of `penstock replay` take."""

from typing import Annotated

import msgspec
import typer

from penstock.core.settings import Settings, read_settings
from penstock.ui.embedded import with_server

ArchiveUrl = Annotated[
    str,
    typer.Option(
        "--archive", help="An archive to read with the log: s3://…, a folder; else PENSTOCK_ARCHIVE_URL."
    ),
]


def asked_settings(archive: str = "") -> Settings:
    """Settings from the environment, overruled by what was given as an option."""
    settings = with_server(read_settings())
    return msgspec.structs.replace(settings, archive_url=archive) if archive else settings
