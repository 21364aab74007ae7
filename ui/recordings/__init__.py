"""A terminal session recorded for the documents: an incident looked into and repaired, on a stage of its own.

`python -m penstock.ui.recordings` (`make session`) plays it and writes all that is made from it. To read:

    shop.py       the product: one job, as it was released first
    stage.py      the shop in a folder of its own: processes, releases, orders
    terminal.py   a command in a pseudo-terminal, and what it shows
    incident.py   the story: what one thinks, what one types, and what must then be seen
    pages.py      the record as a page and as pictures
"""
