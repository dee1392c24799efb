"""The command line: `main` reads the arguments, and a module for each command does what it says."""
