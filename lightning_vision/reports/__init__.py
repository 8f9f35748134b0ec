"""What people look at after a run: curves, confusion matrices, sheets of samples, tables.

Everything takes numpy arrays and plain data. Matplotlib is imported inside the functions that draw, and used through
``matplotlib.figure.Figure`` alone, so that neither a notebook's pyplot state nor a display is touched.
"""
