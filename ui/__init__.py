"""How people meet Penstock: the command line, the HTTP server, and all processes from one command.

The only room that knows all others. Read in this order:

    cli          the commands
    processes    what each process of ours runs
    embedded     the server we start where none is given
    lifeline     signals, and ending with one's parent
    child        one supervised process
    supervisor   all of them, started and drained in order
    up           `penstock up`: which processes, which ports, which addresses
    console      what they print
    demo         the guided demo
    mailbox      caught mails on disk
    mailcatcher  SMTP in, a page and JSON out
    remote       the commands that ask a running API
    output       their tables
"""
