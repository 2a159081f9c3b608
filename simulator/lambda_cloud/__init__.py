"""A Lambda Cloud API simulator over real HTTP; see docs/simulator_lambda.md."""
