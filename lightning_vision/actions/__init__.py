"""What can be done, one action a file: from the command line (``run``), and from Python."""
