"""The client: connect(), unix_connect(), reconnect(); see the README."""
