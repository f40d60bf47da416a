//! LeNet-5 in ndarray.
