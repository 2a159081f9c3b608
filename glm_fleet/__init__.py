"""The command ``glm-fleet`` of the Python package; what it deploys with is the collection beside it."""
