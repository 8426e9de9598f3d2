"""The server: serve(), open_server(), accept(); see the README."""
