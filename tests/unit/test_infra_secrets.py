"""Secrets come from files too, as container platforms hand them over."""

from pathlib import Path

import pytest

from penstock.core.errors import Misconfigured
from penstock.core.settings import FILE, MAX_SECRET, PREFIX, Secret, Settings, read_settings

SECRETS = [name for name in Settings.__struct_fields__ if isinstance(getattr(Settings(), name), Secret)]


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_gives_its_secret(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text("hunter2 é\n")
    settings = read_settings({PREFIX + name.upper() + FILE: str(file)})
    secret = getattr(settings, name)
    assert secret.reveal() == "hunter2 é"
    assert "hunter2" not in repr(settings)


def test_what_is_no_secret_comes_from_no_file(tmp_path: Path) -> None:
    file = tmp_path / "port"
    file.write_text("8080")
    assert read_settings({"PENSTOCK_API_PORT_FILE": str(file)}) == Settings()


def test_the_variable_itself_counts_first(tmp_path: Path) -> None:
    given = {"PENSTOCK_API_KEYS": "here", "PENSTOCK_API_KEYS_FILE": str(tmp_path / "none")}
    assert read_settings(given).api_keys.reveal() == "here"


def test_an_empty_name_is_none() -> None:
    assert not read_settings({"PENSTOCK_API_KEYS_FILE": ""}).api_keys


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * (MAX_SECRET + 1)])
def test_a_file_that_cannot_be_read_is_named_and_not_shown(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Misconfigured, match=f"^PENSTOCK_API_KEYS_FILE: {file}") as caught:
        read_settings({"PENSTOCK_API_KEYS_FILE": str(file)})
    assert "xxx" not in str(caught.value)
