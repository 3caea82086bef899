"""What goes over the wire. Input is strict and refuses unknown fields; output is for OpenAPI."""
