"""Penstock's projector on the server at BENCH_URL, until it is killed: `python -m bench.projector_side`."""

import os

import uvloop

from penstock.core.settings import Secret, Settings
from penstock.projections.projector import run_projector

if __name__ == "__main__":
    uvloop.run(run_projector(Settings(redis_url=Secret(os.environ["BENCH_URL"]))))
