"""From a trained model to files: prediction, and what is written about each image."""
