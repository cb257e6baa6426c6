"""Decide on the films named on the command line, in this process: no node, no network, no PyTorch."""

import sys

from edgecxr.runtimes.screener import Screener

with Screener() as screener:  # the bundle of the package on the best engine proved here
    for path in sys.argv[1:]:
        result = screener.screen(path)
        if result.status == "refused":  # not a negative: nobody has looked at this film
            print(f"{path}: refused, {result.detail}")
            continue
        for finding in result.findings:
            score = f"{finding.probability:.3f} (threshold {finding.threshold:.3f})"
            print(f"{path}: {finding.name} {finding.decision}, {score}")
