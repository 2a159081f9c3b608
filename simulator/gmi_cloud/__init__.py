"""A stand-in for GMI Cloud's Cluster Engine API: lists, logs, and the life of machines and elastic IPs."""
