"""ONNX files from elsewhere: read without trust, understood as image classifiers, and brought to a bundle's form."""
