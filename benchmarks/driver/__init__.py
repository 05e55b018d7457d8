"""The driver of Tidemark's benchmarks: it starts a fresh server for every measurement, feeds it, and prints one JSON line each. See benchmarks/README.md."""
