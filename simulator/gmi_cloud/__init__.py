"""A stand-in for GMI Cloud's Cluster Engine API: lists, and the life of containers and their elastic IPs."""
