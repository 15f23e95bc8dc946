"""The load test: a client of the public API that shares only workloads with what it tests."""
