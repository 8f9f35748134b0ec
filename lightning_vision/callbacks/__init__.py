"""What happens beside the training: progress and the table of figures per epoch."""
