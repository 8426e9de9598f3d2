"""What users hold, and the block it lives in; see the README."""
