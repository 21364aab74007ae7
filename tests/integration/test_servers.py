"""The test servers are real: what they were told survives SIGKILL, and they can stall and go on."""

import pytest
import redis
import redis.asyncio

from servers import RealServer


async def test_client_speaks_to_each_kind_of_server(
    server: RealServer, client: redis.asyncio.Redis, namespace: str
) -> None:
    await client.set(namespace, b"here")
    assert await client.get(namespace) == b"here"
    info = await client.info("server")
    assert ("valkey_version" in info) == (server.kind == "valkey")


def test_data_survives_sigkill(own_server: RealServer) -> None:
    with own_server.client() as client:
        client.set("kept", "yes")
    before = own_server.pid
    own_server.restart()
    with own_server.client() as client:
        assert client.get("kept") == b"yes"
    assert own_server.pid != before


def test_a_frozen_server_does_not_answer_until_thawed(own_server: RealServer) -> None:
    with own_server.client(socket_timeout=0.2, retry=None) as client:
        own_server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        own_server.thaw()
        assert client.ping()
