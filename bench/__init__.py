"""Benchmarks that anyone can run: `uv run python -m bench`. The figures: docs/benchmarks.md."""
