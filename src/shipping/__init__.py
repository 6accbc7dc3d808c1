"""What takes a model elsewhere: Kaggle kernel, ONNX, hub. How it predicts there belongs to prediction."""
