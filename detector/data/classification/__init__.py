"""Images for classifiers: one label an image, and their way to the network."""
