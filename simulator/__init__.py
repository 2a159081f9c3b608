"""The GPU-free stand-in for the rented world behind ``-i rehearsal``; nothing of the product imports it."""
