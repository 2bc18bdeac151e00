"""What the tap costs, beside its peers: see README.md in this folder."""
