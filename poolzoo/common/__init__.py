"""What every room may use: errors, output, files written whole, sizes of the machine. It knows no poolings."""
