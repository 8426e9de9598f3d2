"""HTTP messages, as far as the opening handshake needs them."""
