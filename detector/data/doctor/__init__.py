"""What is wrong with a data set, and what a detector will make of it."""
