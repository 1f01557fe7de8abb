"""The commands: each module has ``main(argv)``, which returns the exit code."""
