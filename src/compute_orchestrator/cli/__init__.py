"""The command `orc`: one file a command. What needs the server is imported inside the command."""
