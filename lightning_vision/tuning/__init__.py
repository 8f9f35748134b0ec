"""What a fit finds out for itself before it begins: batch size, precision, memory format, learning rate."""
