"""The command trio-ws; importing trio_ws doesn't import it."""
