"""TIR kernels of the model, one concept per file. They know shapes and packings, nothing of models or files."""
