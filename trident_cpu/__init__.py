"""A Triton backend for CPUs: any @triton.jit kernel as native, vectorised, multi-threaded code."""
