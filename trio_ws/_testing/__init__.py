"""What trio_ws.testing has."""
