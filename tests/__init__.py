"""The tests. Each folder holds one kind; `promises/` has a file a promise."""
