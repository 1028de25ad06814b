"""Device functions that kernels share. Nothing here runs on the host."""
