"""The tests of all three distributions."""
