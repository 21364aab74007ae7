"""Every Redis key, made here and nowhere else.

All keys of a partition share the hash tag `{queue.n}`: one slot, so that every script may touch
them together on a single server and on a cluster alike. With the namespace `penstock`:

    penstock:queues                          set     the queues that exist
    penstock:rate:<who>                      string  rate limit of one API key or address
    penstock:{email.0}:epoch                 string  this partition's identity; no epoch, not open
    penstock:{email.0}:log                   stream  every event
    penstock:{email.0}:lane:<name>           stream  jobs to do, group `workers`
    penstock:{email.0}:due                   zset    when a parked entry may be claimed, ms
    penstock:{email.0}:workers               zset    consumers, by their last sign of life, ms
    penstock:{email.0}:crashes               hash    entries whose worker died, how often
    penstock:{email.0}:control               hash    paused, limits, and their counters
    penstock:{email.0}:groups                hash    concurrency key → how many of its jobs run
    penstock:{email.0}:group_of              hash    entries that run or are held → their group
    penstock:{email.0}:held                  zset    parked entries whose group runs all it may
    penstock:{email.0}:turns                 zset    groups with held entries, last served first out
    penstock:{email.0}:unique                hash    unique key → the job that holds it
    penstock:{email.0}:unique_of             hash    entries whose job holds a unique key
    penstock:{email.0}:told                  hash    cancelled entries that still run → consumer;
                                                     and who is asked to leave
    penstock:{email.0}:facts                 hash    consumer → what it says of itself
    penstock:{email.0}:once:<key>            string  idempotency key → the first job's position
    penstock:{email.0}:sender:<producer>     string  a producer's last batch and its answer
    penstock:{email.0}:token:<token>         string  positions of the facts appended under it
    penstock:{email.0}:base                  hash    what the trimmed part of the log had counted
    penstock:{email.0}:readers               hash    reader of the log → what it needs no longer
    penstock:{email.0}:snapshots             stream  what the views had counted, now and then
    penstock:{email.0}:doubted               string  up to where those in an archive were made from
                                                     views that were not as the log says
    penstock:{email.0}:view:checkpoint       string  the last position the views have seen
    penstock:{email.0}:view:jobs             hash    job → its row
    penstock:{email.0}:view:in:<state>:<type> zset   the jobs of a type in a state, in log order
    penstock:{email.0}:view:loose            zset    events that belong to no job, in log order
    penstock:{email.0}:view:stats            string  counts, totals
    penstock:{email.0}:view:minutes          hash    minute → what happened in it
    penstock:{email.0}:shadow:<view>         (each)  views that are being made anew beside these
    penstock:{email.0}:folders               zset    who makes them, until when they may be silent, ms

A ledger is a partition with a log, an epoch and tokens only. Its name begins with `_`, as no
queue's may: penstock:{_schedules.0}:log.
"""

from functools import cached_property
from typing import Final

GROUP: Final = "workers"
PARKED: Final = "parked"

# The order is the order in which workers take; `later` holds delayed jobs, which reach workers
# through `due`, never as fresh entries.
LANES: Final = ("high", "normal", "low", "later")


class Keys:
    """Keys that belong to no partition."""

    def __init__(self, namespace: str) -> None:
        self.namespace: Final = namespace
        self.queues: Final = f"{namespace}:queues"
        self._partitions: Final[dict[tuple[str, int], PartitionKeys]] = {}

    def rate(self, who: str) -> str:
        return f"{self.namespace}:rate:{who}"

    def partition(self, queue: str, number: int = 0) -> "PartitionKeys":
        known = self._partitions.get((queue, number))
        if known is None:
            known = self._partitions[queue, number] = PartitionKeys(self.namespace, queue, number)
        return known

    def ledger(self, name: str) -> "PartitionKeys":
        """A partition that is a log and nothing else."""
        return self.partition(f"_{name}")


class PartitionKeys:
    """The keys of one partition of a queue. `views`: which of its views, those in use or the shadow."""

    def __init__(self, namespace: str, queue: str, number: int = 0, views: str = "view") -> None:
        self._namespace: Final = namespace
        self.queue: Final = queue
        self.number: Final = number
        self.name: Final = f"{queue}.{number}"
        self.is_ledger: Final = queue.startswith("_")
        self.queues: Final = f"{namespace}:queues"
        self.prefix: Final = f"{namespace}:{{{self.name}}}:"
        self._views: Final = f"{self.prefix}{views}:"
        self.epoch: Final = self.prefix + "epoch"
        self.log: Final = self.prefix + "log"
        self.lanes: Final = tuple(f"{self.prefix}lane:{name}" for name in LANES)
        self.due: Final = self.prefix + "due"
        self.workers: Final = self.prefix + "workers"
        self.crashes: Final = self.prefix + "crashes"
        self.control: Final = self.prefix + "control"
        self.told: Final = self.prefix + "told"
        self.facts: Final = self.prefix + "facts"
        # What the scripts that move jobs take, in the order of entries.lua.
        self.entries: Final = (
            *(self.epoch, self.log, *self.lanes, self.due, self.workers, self.crashes, self.control),
            *(self.prefix + name for name in ("group_of", "groups", "held", "turns", "unique", "unique_of")),
            self.told,
        )
        self.base: Final = self.prefix + "base"
        self.readers: Final = self.prefix + "readers"
        self.folders: Final = self.prefix + "folders"
        self.snapshots: Final = self.prefix + "snapshots"
        self.doubted: Final = self.prefix + "doubted"
        self.checkpoint: Final = self._views + "checkpoint"
        self.jobs: Final = self._views + "jobs"
        self.loose: Final = self._views + "loose"
        self.stats: Final = self._views + "stats"
        self.minutes: Final = self._views + "minutes"

    @cached_property
    def views(self) -> str:
        """A pattern that matches every view, and nothing that is not one."""
        return self._views.replace("[", "\\[") + "*"

    @cached_property
    def shadow(self) -> "PartitionKeys":
        """The same partition, with views that are made anew in place of those in use."""
        return PartitionKeys(self._namespace, self.queue, self.number, "shadow")

    @cached_property
    def passing(self) -> tuple[str, ...]:
        """How the names of those keys begin that live for a time only."""
        return (self.once(""), self.sender(""), self.token(""))

    def is_ours(self, name: str) -> bool:
        """Whether a key with the partition's prefix is one of those above."""
        fixed = (
            *(*self.entries, self.facts, self.base, self.readers, self.folders),
            *(self.snapshots, self.doubted),
        )
        families = (self.prefix + family for family in ("view:", "shadow:"))
        return name in fixed or name.startswith((*self.passing, *families))

    def once(self, key: str) -> str:
        return f"{self.prefix}once:{key}"

    def marker(self, end: str) -> str:
        return f"{self.prefix}once:end:{end}"

    def sender(self, producer: str) -> str:
        return f"{self.prefix}sender:{producer}"

    def token(self, token: str) -> str:
        return f"{self.prefix}token:{token}"

    def index(self, state: str, type: str) -> str:
        return f"{self._views}in:{state}:{type}"

    def job_id(self, position: str) -> str:
        return f"{self.name}.{position}"
