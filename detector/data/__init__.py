"""Data sets, images and the way from them to batches."""
