"""Flows: jobs that wait for one another.

graph         building one in Python: Flow, chain, batch
intake        a request, checked as a whole
facts         what is written about flows, in a ledger of their own
course        the fold of these facts, and what follows from them
board         all flows, folded in memory
client        submit, look, wait, cancel
coordinator   carries them out; with handing (what a node is given) and ends (what became of it)
"""

from penstock.producer.flows.client import FlowDetail, FlowHandle, Flows
from penstock.producer.flows.graph import Flow, batch, chain

__all__ = ["Flow", "FlowDetail", "FlowHandle", "Flows", "batch", "chain"]
