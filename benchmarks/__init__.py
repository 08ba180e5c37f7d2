"""What the library costs, measured side by side with named peers: ``python -m benchmarks``."""
