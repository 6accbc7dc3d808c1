"""How a model leaves: Kaggle kernel, ONNX, hub. What predicts there belongs to prediction."""
