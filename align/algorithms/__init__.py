"""Pure functions on flat tensors: advantages, policy losses, reductions, KL, and the methods bundled from them."""
