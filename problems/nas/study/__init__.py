"""The study of architecture search on MNIST-1D."""
