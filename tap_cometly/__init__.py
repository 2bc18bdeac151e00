"""A Singer tap for Cometly: every contact of a Space, through asynchronous exports.

Data flow: `command` runs `tap`, which reads `settings`; `windows` splits the range, `exports`
requests an export for each window, `files` downloads it as a stream of lines, `contacts` decodes
and checks them, `streams` orders RECORD and STATE messages, and `messages` writes them.
"""
