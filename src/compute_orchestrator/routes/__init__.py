"""HTTP only: parse, one service call, answer."""
