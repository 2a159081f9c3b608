"""Hosts of a rehearsal: containers that boot systemd, sshd and, for GPU hosts, cloud-init and Docker."""
