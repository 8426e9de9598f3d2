"""trio-ws demo: connections to watch, and buttons that do what networks do."""
