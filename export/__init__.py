"""From a trained ensemble to a proven bundle: distill, quantize, prove, pack. Needs the `train` extra."""
