"""A Singer tap for Cometly: every contact of a Space, by asynchronous exports.

One contact's way through the modules: `command` runs `tap`, whose `settings` say who and since
when; `windows` cut the time into stretches, `exports` has Cometly write a file for each, `files`
reads it as an unbroken stream of lines, `contacts` checks and shapes each line, `streams` puts
records and bookmarks in order, `messages` writes them.
"""
