"""Conformance: does a worker, in whatever language, do its duties?

`duties` lists what is asked, the same as docs/workers.md. For each duty `checks` has one check,
which is given a `stage`: a queue of its own on a real server, and one process of the worker behind
a `proxy` that records the `traffic` and can lose, refuse and hold answers. `run` does them side by
side. Nothing of the worker is looked into: only what it sends, what became of its jobs, and how it
ends.
"""
