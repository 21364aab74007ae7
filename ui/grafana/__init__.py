"""Grafana's dashboards, written in code: names come from penstock.core.telemetry, so that none can be wrong.

Read queries.py (the few forms a query takes), panels.py (how all panels look), then a dashboard each:
overview.py, queues.py, store.py, processes.py. `make grafana` writes them into infra/grafana/dashboards,
from where Grafana is provisioned; a test checks that both agree. Needs grafana-foundation-sdk, which is a
dependency of development only: the package that is installed has none of this.
"""
