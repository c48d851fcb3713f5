"""Real servers from wheels, on loopback, for the demo and the tests."""
