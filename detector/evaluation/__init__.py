"""Scores of detections against ground truth; knows nothing of networks and images."""
