"""What the long runs share: a migration on real servers that may be harmed, and the proof of what it left behind."""
