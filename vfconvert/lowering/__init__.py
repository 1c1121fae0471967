"""From trainable layers to their inference form: ordinary operators that share sums, in a graph of their own."""
