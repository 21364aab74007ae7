"""`python -m penstock.ui.grafana FOLDER` writes each dashboard as JSON into a folder."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from penstock.ui.grafana.overview import overview
from penstock.ui.grafana.processes import processes
from penstock.ui.grafana.queues import queues
from penstock.ui.grafana.store import store


def dashboards() -> dict[str, str]:
    """Each dashboard as JSON, by its file's name."""
    made = {"overview": overview, "queues": queues, "store": store, "processes": processes}
    return {
        f"{name}.json": json.dumps(make(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, make in made.items()
    }


if __name__ == "__main__":
    for file, text in dashboards().items():
        (Path(sys.argv[1]) / file).write_text(text)
