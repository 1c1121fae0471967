"""What a network is before it is changed: its layers and shapes, its dataflow, its numbers and products."""
