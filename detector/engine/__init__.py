"""Training, inference, checkpoints, and the user's ``Detector``."""
