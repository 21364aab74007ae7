"""Every setting is read from its variable, a wrong one is named, and secrets stay secret."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.connection import connect
from penstock.core.errors import Misconfigured
from penstock.core.settings import PREFIX, Secret, Settings, read_settings

# Field → a text that is right, what it means, and texts that are wrong.
FIELDS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "redis_url": ("redis://h:1/2", "redis://h:1/2", ()),
    "stage_url": ("redis://h:1/3", "redis://h:1/3", ()),
    "namespace": ("my-app_2", "my-app_2", ("", "My", "a b", "a:b", "{a}", "a" * 33, "-a", "a*", "a\n")),
    "data_dir": ("/var/lib/penstock", Path("/var/lib/penstock"), ()),
    "fsync": ("always", "always", ("sometimes", "", "ALWAYS")),
    "replicas": ("2", 2, ("-1", "11", "x")),
    "host": ("0.0.0.0", "0.0.0.0", ()),  # noqa: S104
    "api_port": ("8080", 8080, ("0", "65536", "-1", "http", "", "80.5")),
    "dashboard_port": ("8081", 8081, ("0", "65536", "x")),
    "dashboard_password": ("pw", "pw", ()),
    "dashboard_read_password": ("pw", "pw", ()),
    "server": ("granian", "granian", ("gunicorn", "")),
    "api_keys": ("k1,k2", "k1,k2", ()),
    "rate_limit": ("2.5", 2.5, ("-1", "nan", "fast")),
    "rate_burst": ("7", 7, ("0", "-3", "x")),
    "trusted_proxies": ("2", 2, ("-1", "11", "all")),
    "max_payload": ("10", 10, ("0", "-1", "1k")),
    "max_body": ("10", 10, ("0", "1M")),
    "max_batch": ("10", 10, ("0", "x")),
    "max_result": ("10", 10, ("0", "x")),
    "max_artifact": ("10", 10, ("0", "x")),
    "idempotency_ttl": ("60", 60.0, ("0", "-1", "nan", "a day")),
    "jobs": (" a.b , c,,", ("a.b", "c"), ()),
    "queues": ("email", ("email",), ()),
    "concurrency": ("0", 0, ("-1", "10001", "many")),
    "lease": ("1.5", 1.5, ("0.5", "3601", "nan", "inf", "x")),
    "grace": ("0", 0.0, ("-1", "86401", "inf", "x")),
    "crash_limit": ("1", 1, ("0", "x")),
    "flow_retention": ("60", 60.0, ("0", "-1", "long")),
    "retention_completed": ("60", 60.0, ("0", "-1", "long")),
    "retention_failed": ("60", 60.0, ("0", "-1", "long")),
    "retention_cancelled": ("60", 60.0, ("0", "-1", "long")),
    "artifacts_url": ("s3://b", "s3://b", ()),
    "archive_url": ("s3://b/a", "s3://b/a", ()),
    "smtp_host": ("mail.example.org", "mail.example.org", ()),
    "smtp_port": ("25", 25, ("0", "70000")),
    "smtp_security": ("starttls", "starttls", ("ssl",)),
    "smtp_user": ("u", "u", ()),
    "smtp_password": ("pw", "pw", ()),
    "mail_from": ("a@example.org", "a@example.org", ()),
    "mail_port": ("2525", 2525, ("x",)),
    "mail_web_port": ("8026", 8026, ("x",)),
    "ai_base_url": ("http://h/v1", "http://h/v1", ()),
    "ai_api_key": ("sk", "sk", ()),
    "payload_keys": ("new,old", "new,old", ()),
    "ai_model": ("m", "m", ()),
    "fetch_private": ("true", True, ("maybe", "")),
    "metrics_port": ("9100", 9100, ("-1", "65536", "off", "")),
    "log_format": ("json", "json", ("xml",)),
}
WRONG = [(name, text) for name, (_, _, texts) in FIELDS.items() for text in texts]
SECRETS = (
    *("redis_url", "stage_url", "api_keys", "smtp_password", "ai_api_key", "payload_keys"),
    *("dashboard_password", "dashboard_read_password"),
)


def test_every_setting_is_tried_here() -> None:
    assert set(FIELDS) == set(Settings.__struct_fields__)


@pytest.mark.parametrize("name", FIELDS)
def test_a_variable_sets_its_field_and_no_other(name: str) -> None:
    text, meaning, _ = FIELDS[name]
    settings = read_settings({PREFIX + name.upper(): text})
    found = getattr(settings, name)
    assert (found.reveal() if isinstance(found, Secret) else found) == meaning
    plain = Settings()
    others = [other for other in Settings.__struct_fields__ if other != name]
    assert all(getattr(settings, other) == getattr(plain, other) for other in others)


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_names_its_variable(name: str, text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        read_settings({PREFIX + name.upper(): text})
    assert str(caught.value).startswith(f"{PREFIX}{name.upper()}: ")


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({}) == Settings()


def test_other_variables_are_not_ours() -> None:
    assert read_settings({"PENSTOCKS_LEASE": "x", "LEASE": "x", "penstock_lease": "x"}) == Settings()


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_shows_itself_only_when_asked(name: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = read_settings({PREFIX + name.upper(): "hunter2"})
    secret = getattr(settings, name)
    logging.getLogger("test").warning("%s %r %s", secret, secret, settings)
    shown = [repr(settings), str(settings), f"{secret}", f"{secret!r}", caplog.text]
    assert not any("hunter2" in text for text in shown)
    assert (secret.reveal(), bool(secret), bool(Secret(""))) == ("hunter2", True, False)
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host:port/0",
        "redis://user:hunter2/3@host:6379/0",  # a password with a slash in it, not quoted
        "redis://user:hunter2[@host:6379/0",
        "http://user:hunter2@host",
        "hunter2",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(Misconfigured, match="PENSTOCK_REDIS_URL") as caught:
        connect(Settings(redis_url=Secret(url)))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_address_says_what_to_set() -> None:
    with pytest.raises(Misconfigured, match="PENSTOCK_REDIS_URL is not set"):
        connect(Settings())
