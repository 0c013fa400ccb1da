"""Getting the data and the model, and knowing them by their bytes."""
