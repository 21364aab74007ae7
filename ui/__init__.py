"""How people meet Penstock: the command line, the HTTP API, and all processes from one command.

The only room that knows all others. Read in this order:

    cli          the commands
    processes    what each process of ours runs
    jobs         the contracts and handlers a process knows
    lifeline     signals, and ending with one's parent
    logs         how processes log

    api          the HTTP API: all routes in one app
    gate         who may pass, and how often
    problems     our errors as problem+json
    openapi      the API's own description
    docs         the page that shows it
    serving      the HTTP servers
    ports        whether they can listen there

    dashboard    the dashboard's server: who may what, the API behind it
    sessions     signed cookies, roles, passwords
    passthrough  requests and the feed on their way to the API
    mail_preview the mail of a job as it looks
    webapp       the files of the web app

    metrics          /metrics of a process, through OpenTelemetry's exporter
    http_metrics     requests, measured around an app
    process_metrics  what the system says of a process

    up           `penstock up`: which processes, which ports, which addresses
    supervisor   all processes, started and drained in order
    child        one of them
    embedded     the server we start where none is given
    engines      which program that is
    console      what they print
    demo         the guided demo

    system       the handlers of Penstock's own jobs: many at once, redriving
    redriving    what a filter selects, submitted again
    rehearsing   what a filter selects, run with the code of now and compared
    whatif       a stretch of a queue, played again with other settings

    mailcatcher  SMTP in, a page and JSON out
    mailbox      caught mails on disk
    remote       the commands that ask a running API
    output       their tables
    *_commands   each group of commands; replay_* those of the replay tool
    progress     bars
    recordings   an incident as a terminal session, played and recorded for the documents
"""
