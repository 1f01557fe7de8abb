"""Speed, memory and work of a configuration's network, part by part, beside other ways to the same numbers."""
