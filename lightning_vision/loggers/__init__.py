"""Logs of runs beside metrics.csv: TensorBoard, Weights & Biases, MLflow."""
