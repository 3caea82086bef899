"""The store: the tables, the statements, the sessions that run them, and the clock."""
