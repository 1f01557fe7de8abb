"""Classifiers: evaluation, and what is written about it."""
