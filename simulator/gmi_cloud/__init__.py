"""A stand-in for the read side of GMI Cloud's Cluster Engine API, for the inventory's tests."""
