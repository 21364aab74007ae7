"""The server of the stack, with its own configuration and secrets: safe with what it accepts, and shut to
who has no password."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from deployment import INFRA
from servers import binary, wait_until


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder of secrets as the stack makes it."""
    _make_secrets(tmp_path)
    return tmp_path / "secrets"


@pytest.fixture
def started(secrets: Path, tmp_path: Path) -> Iterator[Path]:
    """valkey-server with valkey.conf, on a unix socket; answers its path."""
    (tmp_path / "data").mkdir()
    text = (INFRA / "valkey/valkey.conf").read_text()
    text = text.replace("/run/secrets", str(secrets)).replace("dir /data", f"dir {tmp_path / 'data'}")
    (tmp_path / "valkey.conf").write_text(text)
    socket = tmp_path / "s"
    words = (str(tmp_path / "valkey.conf"), "--port", "0", "--unixsocket", str(socket))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([binary("valkey"), *words], stdout=log, stderr=log)
    try:
        wait_until(socket.exists, 30, f"it listens: {(tmp_path / 'log').read_text()}")
        yield socket
    finally:
        process.terminate()
        process.wait(20)


def test_the_server_keeps_what_it_accepts_and_knows_its_password(started: Path, secrets: Path) -> None:
    with redis.Redis(unix_socket_path=str(started)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    password = (secrets / "redis_password").read_text().strip()
    with redis.Redis(unix_socket_path=str(started), password=password) as client:
        wait_until(client.ping, 30, "it answers")
        told = client.config_get("append*", "maxmemory*", "save")
    assert (told["appendonly"], told["appendfsync"], told["save"]) == ("yes", "everysec", "")
    assert (told["maxmemory"], told["maxmemory-policy"]) == (str(512 * 1024 * 1024), "noeviction")


def test_secrets_are_made_once_and_kept(secrets: Path, tmp_path: Path) -> None:
    def all_of_them() -> dict[str, str]:
        return {
            it.name: it.read_text() for folder in (secrets, tmp_path / "grafana") for it in folder.iterdir()
        }

    made = all_of_them()
    password = made["redis_password"].strip()
    assert made["redis_url"] == f"redis://:{password}@valkey:6379/0\n"
    assert made["valkey.conf"] == f"requirepass {password}\n"
    random = [made[name] for name in ("redis_password", "dashboard_password", "grafana_password", "api_keys")]
    assert len(set(random)) == 4
    assert all(len(it.strip().removeprefix("dashboard:")) == 64 for it in random)
    assert {(secrets / name).stat().st_mode & 0o777 for name in ("redis_url", "api_keys")} == {0o440}
    _make_secrets(tmp_path)
    assert all_of_them() == made
    (secrets / "api_keys").unlink()
    _make_secrets(tmp_path)
    assert all_of_them().keys() == made.keys()


def _make_secrets(folder: Path) -> None:
    for name in ("secrets", "grafana"):
        (folder / name).mkdir(exist_ok=True)
    words = [INFRA / "secrets.sh", folder / "secrets", folder / "grafana"]
    said = subprocess.run(words, check=True, capture_output=True, text=True)
    assert said.stdout == "the secrets are there\n"
