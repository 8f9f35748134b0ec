"""Random changes of training batches: image and mask together, drawn for every sample."""
