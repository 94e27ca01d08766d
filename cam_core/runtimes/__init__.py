"""What runs a model: torch or onnxruntime."""
