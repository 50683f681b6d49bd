"""Random changes of training images: what is drawn for each image, and how a batch of pixels is changed."""
