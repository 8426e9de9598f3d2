"""What may change frames on their way (RFC 6455, section 9; RFC 7692)."""
