"""Compute Orchestrator: a job server that workers in any language speak to over plain HTTP."""

__version__ = "0.1.0"
