"""Weights in files: our own and those of other toolkits. No file can run code."""
