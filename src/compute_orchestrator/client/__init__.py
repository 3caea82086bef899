"""The SDK: a client for producers and operators, and workers that run your functions."""
