"""A catalog of the errors of the program."""
