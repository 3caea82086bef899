"""The scenarios: one file each, `run(options) -> Outcome`, named in `bench/__main__.py`."""
