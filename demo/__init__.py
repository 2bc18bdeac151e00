"""What `demo.sh` needs besides bash."""
