"""Prints the results of `demo.sh`, and draws the README's picture."""
