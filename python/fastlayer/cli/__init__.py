"""What the commands of `python -m fastlayer` do: a module for each, imported when it is asked for."""
