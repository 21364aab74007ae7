"""What every test may use: the real servers of `servers.py`, the command line as a
process (`commands.py`), what a test on a server begins with (`beginnings.py`), and asyncio for
`async def` tests."""

import pytest

pytest_plugins = ["servers", "commands", "beginnings"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
