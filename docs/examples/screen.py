"""Decide on the films named on the command line, in this process: no node, no network, no PyTorch."""

import sys

from edgecxr.runtimes.screener import Screener

if len(sys.argv) < 2:
    print(f"usage: {sys.argv[0]} FILM...", file=sys.stderr)
    sys.exit(2)
refused = False
with Screener() as screener:  # the bundle of the package on the best engine proved here
    for path in sys.argv[1:]:
        result = screener.screen(path)
        if result.status == "refused":  # not a negative: nobody has looked at this film
            refused = True
            print(f"{path}: refused, {result.detail}")
        for finding in result.findings:  # none where it was refused
            score = f"{finding.probability:.3f} (threshold {finding.threshold:.3f})"
            print(f"{path}: {finding.name} {finding.decision}, {score}")
sys.exit(1 if refused else 0)
