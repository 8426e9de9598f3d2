"""What carries the bytes: sockets, TLS, any trio stream; base has the interface."""
