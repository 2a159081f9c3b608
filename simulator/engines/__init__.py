"""Engine images of the rehearsal: the real engines on a CPU behind the production command line."""
