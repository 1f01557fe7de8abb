"""A mended copy of a data set: decided from what was found, written in the data set's own format."""
