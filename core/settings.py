"""Settings: read from the environment once, checked, and passed on as one value.

Every variable is `PENSTOCK_` and the field's name in capitals. Secrets are wrapped so that no
log line, error or repr shows them, and may be given as files, as container platforms hand them over:
`PENSTOCK_API_KEYS_FILE=/run/secrets/api_keys`. The variable itself counts where both are set.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from penstock.core.errors import Misconfigured

PREFIX: Final = "PENSTOCK_"
FILE: Final = "_FILE"
MAX_SECRET: Final = 64 * 1024  # bytes of a file with a secret


class Secret:
    """A value that shows itself only when asked: `secret.reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __bool__(self) -> bool:
        return bool(self._value)


Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of all processes. Times in seconds, sizes in bytes."""

    redis_url: Secret = Secret("")
    stage_url: Secret = Secret("")  # a server for the keys of rehearsals; else the same
    namespace: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}\Z")] = "penstock"
    data_dir: Path = Path(".penstock")
    fsync: Literal["always", "everysec", "no"] = "everysec"
    replicas: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0

    host: str = "127.0.0.1"
    api_port: Port = 3001
    dashboard_port: Port = 3000
    dashboard_password: Secret = Secret("")
    dashboard_read_password: Secret = Secret("")
    server: Literal["hypercorn", "uvicorn", "granian"] = "hypercorn"
    api_keys: Secret = Secret("")
    rate_limit: Annotated[float, msgspec.Meta(ge=0)] = 0
    rate_burst: Count = 100
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0

    max_payload: Count = 256 * 1024
    max_body: Count = 8 * 1024 * 1024
    max_batch: Count = 1_000
    max_result: Count = 256 * 1024
    max_artifact: Count = 64 * 1024 * 1024
    idempotency_ttl: Positive = 24 * 3600.0
    flow_retention: Positive = 72 * 3600.0  # how long an ended flow is remembered

    retention_completed: Positive = 24 * 3600.0
    retention_failed: Positive = 72 * 3600.0
    retention_cancelled: Positive = 24 * 3600.0

    jobs: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    concurrency: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    lease: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 10.0
    grace: Annotated[float, msgspec.Meta(ge=0, le=24 * 3600)] = 20.0
    crash_limit: Count = 3

    artifacts_url: str = ""
    archive_url: str = ""
    payload_keys: Secret = Secret("")

    smtp_host: str = ""
    smtp_port: Port = 1025
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    smtp_user: str = ""
    smtp_password: Secret = Secret("")
    mail_from: str = "penstock@localhost"
    mail_port: Port = 1025
    mail_web_port: Port = 8025

    ai_base_url: str = ""
    ai_api_key: Secret = Secret("")
    ai_model: str = ""

    fetch_private: bool = False

    log_format: Literal["text", "json"] = "text"
    # /metrics of this process; 0: none. Not set: `penstock up` counts from 9100, a process alone has none.
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment. Raises Misconfigured naming the variable that is wrong."""
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        variable = PREFIX + field.name.upper()
        raw = source.get(variable)
        if raw is None and field.type is Secret:
            raw = _from_file(variable + FILE, source.get(variable + FILE))
        if raw is None:
            continue
        text: Any = _words(raw) if field.type == tuple[str, ...] else raw
        try:
            values[field.name] = msgspec.convert(text, field.type, strict=False, dec_hook=_special)
        except msgspec.ValidationError as error:
            raise Misconfigured(f"{variable}: {error}") from None
    return Settings(**values)


def _from_file(variable: str, path: str | None) -> str | None:
    """The text of the file that `variable` names, without the line's end; None where it names none."""
    if not path:
        return None
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SECRET + 1)
        if len(content) > MAX_SECRET:
            raise Misconfigured(f"{variable}: {path} has more than {MAX_SECRET} bytes")
        return content.decode().rstrip("\r\n")
    except OSError as error:
        raise Misconfigured(f"{variable}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{variable}: {path} is not UTF-8 text") from None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _special(target: type, value: Any) -> Any:
    if target is Secret or target is Path:
        return target(value)
    raise NotImplementedError(target)
