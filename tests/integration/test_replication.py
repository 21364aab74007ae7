"""I2, with replicas: a submission is accepted when they have it, and refused, not doubled, when not."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as sync_redis

from penstock.core.connection import connect
from penstock.core.dispatch import Submission
from penstock.core.errors import Unavailable
from penstock.core.keys import Keys
from penstock.core.settings import Secret, Settings
from penstock.producer import outlet
from penstock.producer.outlet import Outlet
from servers import binary, free_port, wait_until

JOB = Submission("normal", b'{"type":"test.echo","payload":{}}')


@contextmanager
def running(port: int, folder: Path, *options: str) -> Iterator[sync_redis.Redis]:
    """A server on a TCP port: replicas follow over nothing else."""
    folder.mkdir()
    words = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options)
    with subprocess.Popen([str(binary("redis")), *words], stdout=subprocess.DEVNULL) as process:
        try:
            client = sync_redis.Redis(port=port)
            wait_until(lambda: answers(client), 30, "the server answers")
            yield client
        finally:
            process.kill()
            shutil.rmtree(folder)


def answers(client: sync_redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except sync_redis.ConnectionError:
        return False


async def test_a_job_is_accepted_when_the_replica_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "PATIENCE_S", 0.5)
    monkeypatch.setattr(outlet, "REPLICA_WAIT_MS", 100)
    port = free_port()
    keys = Keys("penstock").partition("test")
    with running(port, tmp_path / "primary", "--repl-diskless-sync-delay", "0") as primary:
        redis = connect(Settings(redis_url=Secret(f"redis://127.0.0.1:{port}")))
        out = Outlet(redis, keys, once_s=60, replicas=1)
        with running(free_port(), tmp_path / "replica", "--replicaof", f"127.0.0.1 {port}") as replica:
            wait_until(lambda: linked(replica), 30, "the replica follows")
            [accepted] = await out.submit([JOB])
            assert accepted.position in str(replica.xrange(keys.log))
        with pytest.raises(Unavailable, match="0 of 1 replicas"):
            await out.submit([JOB])
        # Sent several times while it waited, and written once.
        assert primary.xlen(keys.log) == 2
        await redis.aclose()


def linked(replica: sync_redis.Redis) -> bool:
    return bool(replica.info("replication")["master_link_status"] == "up")
