"""What every test may use: the real servers of `servers.py`, and asyncio for `async def` tests."""

import pytest

pytest_plugins = ["servers"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
