"""Teachers: the trained networks whose fused knowledge the small student is distilled from. Needs the `train` extra."""
