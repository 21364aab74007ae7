"""A line: one call at a time on a socket that redis-py connected. Each answer goes to its own call."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from certificates import make_certificate
from penstock.core import line as line_module
from penstock.core.connection import connect
from penstock.core.line import Line
from penstock.core.settings import Secret, Settings
from servers import RealServer, free_port


@pytest.fixture
async def redis(own_server: RealServer) -> AsyncIterator[Redis]:
    async with connect(Settings(redis_url=Secret(own_server.url))) as client:
        yield client


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_it_speaks_over_tcp_and_tls_with_a_password_and_a_database(
    make_server: Callable[..., RealServer], tmp_path: Path, scheme: str
) -> None:
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    server, port = make_server("redis"), free_port()
    with server.client() as admin:
        if scheme == "rediss":
            files = {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate}
            admin.config_set("tls-auth-clients", "no", *[str(it) for pair in files.items() for it in pair])
            admin.config_set("tls-port", port)
        else:
            admin.config_set("port", port)
        admin.config_set("requirepass", "pa/ss")
    more = f"?ssl_ca_certs={certificate}" if scheme == "rediss" else ""
    url = f"{scheme}://:pa%2Fss@127.0.0.1:{port}/3{more}"
    async with asyncio.timeout(20), connect(Settings(redis_url=Secret(url))) as client:
        line = Line(client)
        big = b"x" * 3_000_000
        assert await line.execute_command("SET", "key", big) == b"OK"
        assert await line.execute_command("GET", "key") == big
        assert await client.get("key") == big  # in the same database


async def test_a_reply_of_many_parts_comes_whole(redis: Redis) -> None:
    line = Line(redis)
    for number in range(5_000):
        await redis.rpush("list", f"{number}:".encode() + b"y" * (number % 700))
    expected = await redis.lrange("list", 0, -1)
    for _ in range(3):
        assert await line.execute_command("LRANGE", "list", 0, -1) == expected


async def test_an_error_is_raised_as_redis_py_would_and_the_line_goes_on(redis: Redis) -> None:
    line = Line(redis)
    with pytest.raises(NoScriptError):
        await line.execute_command("EVALSHA", "0" * 40, 0)
    with pytest.raises(ResponseError, match="unknown command"):
        await line.execute_command("NONSENSE")
    before = await redis.client_list()
    assert await line.execute_command("ECHO", "on") == b"on"
    assert len(await redis.client_list()) == len(before)


async def test_an_answer_that_nobody_waits_for_is_given_to_nobody_else(redis: Redis) -> None:
    line = Line(redis)
    for number in range(20):
        waiting = asyncio.create_task(line.execute_command("BLPOP", f"never-{number}", 30))
        await asyncio.sleep(0.001 * number)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await redis.rpush(f"never-{number}", "late")
        assert await line.execute_command("ECHO", number) == str(number).encode()


async def test_a_lost_connection_is_said_and_made_again(own_server: RealServer, redis: Redis) -> None:
    line = Line(redis)
    await line.execute_command("SET", "key", "kept")
    waiting = asyncio.create_task(line.execute_command("BLPOP", "never", 30))
    await asyncio.sleep(0.05)
    own_server.kill()
    with pytest.raises(RedisConnectionError):
        await waiting
    with pytest.raises((RedisConnectionError, OSError)):
        await line.execute_command("GET", "key")
    own_server.start()
    assert await line.execute_command("GET", "key") == b"kept"


async def test_a_connection_lost_while_nobody_calls_costs_no_call(redis: Redis) -> None:
    line = Line(redis)
    own: int = await line.execute_command("CLIENT", "ID")
    await redis.client_kill_filter(_id=str(own))
    await asyncio.sleep(0.05)
    assert await line.execute_command("ECHO", "here") == b"here"


async def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    own_server: RealServer, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(redis)
    await line.execute_command("SET", "key", "kept")
    monkeypatch.setattr(line_module, "TIMEOUT_S", 0.2)
    own_server.freeze()
    with pytest.raises(RedisTimeoutError):
        await line.execute_command("INCR", "count")
    own_server.thaw()
    assert await line.execute_command("GET", "key") == b"kept"
