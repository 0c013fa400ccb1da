"""Speed and memory against what people use today."""
