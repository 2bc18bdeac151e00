"""`python -m tap_cometly` is the command `tap-cometly`."""

from tap_cometly.tap import main

main()
