"""`python tests/bench`: the folder above is put on the path, for `bench` and `servers` live there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.run import app

if __name__ == "__main__":
    app()
