"""All keys of a partition live in one slot, no two mean the same thing, and views are told apart."""

import re
from fnmatch import fnmatchcase
from importlib.resources import files

import pytest
from redis.crc import key_slot

from penstock.core import keys as keys_module
from penstock.core.keys import LANES, Keys, PartitionKeys

# What entries.lua keeps and nobody else asks for by name: KEYS 11 to 16.
OF_ENTRIES = ("group_of", "groups", "held", "turns", "unique", "unique_of")


def every_key(keys: PartitionKeys) -> dict[str, str]:
    return {
        "epoch": keys.epoch,
        "log": keys.log,
        **{f"lane:{name}": key for name, key in zip(LANES, keys.lanes, strict=True)},
        "due": keys.due,
        "workers": keys.workers,
        "crashes": keys.crashes,
        "control": keys.control,
        **dict(zip(OF_ENTRIES, keys.entries[10:16], strict=True)),
        "told": keys.told,
        "facts": keys.facts,
        "once:k": keys.once("k"),
        "once:end:12-0": keys.marker("12-0"),
        "sender:p": keys.sender("p"),
        "token:t": keys.token("t"),
        "base": keys.base,
        "readers": keys.readers,
        "view:checkpoint": keys.checkpoint,
        "view:jobs": keys.jobs,
        "view:in:waiting:a.b": keys.index("waiting", "a.b"),
        "view:loose": keys.loose,
        "view:stats": keys.stats,
        "view:minutes": keys.minutes,
        "folders": keys.folders,
        "snapshots": keys.snapshots,
        "doubted": keys.doubted,
        "shadow:checkpoint": keys.shadow.checkpoint,
        "shadow:in:waiting:a.b": keys.shadow.index("waiting", "a.b"),
    }


def test_the_scripts_that_move_jobs_take_their_keys_in_the_order_of_their_header() -> None:
    keys = PartitionKeys("penstock", "email")
    prelude = (files("penstock.core") / "lua" / "entries.lua").read_text()
    told = re.findall(r"(?:^|  )(\d+)(?:\.\.\d+)? ([a-z_]+)", prelude.split("KEYS", 1)[1].split("ARGV")[0])
    assert len(keys.entries) == 17
    for number, name in told:
        expected = keys.lanes[0] if name == "lanes" else keys.prefix + name
        assert keys.entries[int(number) - 1] == expected
    assert [int(number) for number, _ in told] == [1, 2, 3, *range(7, 18)]


@pytest.mark.parametrize("queue", ["email", "a", "x-y_z", "0"])
@pytest.mark.parametrize("number", [0, 7, 9_999])
def test_all_keys_of_a_partition_share_a_slot(queue: str, number: int) -> None:
    keys = PartitionKeys("penstock", queue, number)
    assert len({key_slot(key.encode()) for key in every_key(keys).values()}) == 1


def test_no_two_keys_are_the_same() -> None:
    partitions = [
        PartitionKeys(space, queue, number)
        for space in ("a", "b")
        for queue in ("email", "image")
        for number in (0, 1)
    ]
    made = [key for keys in partitions for key in every_key(keys).values()]
    assert len(set(made)) == len(made)


def test_the_keys_are_those_of_the_description() -> None:
    told = set(re.findall(r"penstock:\{email\.0\}:(\S+)", keys_module.__doc__ or ""))
    assert "lane:<name>" in told
    made = {
        "lane:<name>": LANES,
        "once:<key>": ("k",),
        "sender:<producer>": ("p",),
        "token:<token>": ("t",),
        "view:in:<state>:<type>": ("waiting:a.b",),
        "shadow:<view>": ("checkpoint", "in:waiting:a.b"),
    }
    spelt = {name for name in told if "<" not in name}
    spelt |= {"once:end:12-0"}  # an idempotency key of ours
    for name in told - spelt:
        spelt |= {name[: name.index("<")] + value for value in made[name]}
    assert spelt == set(every_key(PartitionKeys("penstock", "email")))


def test_the_pattern_of_views_matches_views_only() -> None:
    keys = PartitionKeys("penstock", "email")
    for name, key in every_key(keys).items():
        assert fnmatchcase(key, keys.views) == name.startswith("view:"), name
        assert fnmatchcase(key, keys.shadow.views) == name.startswith("shadow:"), name
    assert not fnmatchcase(PartitionKeys("penstock", "image").jobs, keys.views)


def test_our_keys_are_told_from_others() -> None:
    keys = PartitionKeys("penstock", "email")
    assert [name for name, key in every_key(keys).items() if not keys.is_ours(key)] == []
    assert not keys.is_ours(keys.prefix + "mine")
    assert not keys.is_ours(PartitionKeys("penstock", "image").log)


def test_a_job_id_names_its_partition() -> None:
    assert PartitionKeys("penstock", "email", 3).job_id("12-0") == "email.3.12-0"


def test_keys_of_a_partition_are_made_once() -> None:
    keys = Keys("penstock")
    assert keys.partition("email") is keys.partition("email", 0)
    assert keys.partition("email", 1) is not keys.partition("email")
    assert (keys.queues, keys.rate("me")) == ("penstock:queues", "penstock:rate:me")
    assert keys.partition("email").queues == keys.queues
