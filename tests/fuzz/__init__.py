"""Mutated files against the readers: whatever stands in a file, it is read right or refused in a line."""
