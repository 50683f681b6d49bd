"""Does an ONNX file from elsewhere compute what a torch module from elsewhere computes? And if not, why?"""
