"""Data: sources give an index of samples, which is decoded, batched and loaded."""
