"""Whether the data of a lossless JPEG scan end with the pixels that a decoder made of them (T.81 annex H).

libjpeg only warns, unheard, of damaged data: it goes on at a wrong place and leaves data over. But the code of a
sample has no choices: the last pixels, coded again with the stream's own table, must be the last bits of the scan.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LosslessScan", "ends_with", "huffman_codes"]

SAMPLES = 1024  # of the last row that are coded again: some 100 µs
SPARE_BITS = 23  # behind the last code: what fills its byte, and two bytes that some encoders leave


@dataclass(frozen=True)
class LosslessScan:
    """The one scan of one component, without restarts or a point transform."""

    start: int  # of its entropy data, offset in the stream
    end: int
    predictor: int  # T.81 table H.1
    codes: dict[int, str]  # category of a difference -> Huffman code, as digits 0 and 1


def huffman_codes(segment: bytes) -> dict[int, dict[int, str]]:
    """Codes by symbol of each DC table in a DHT segment by number (T.81 annex C); what is cut short is left out."""
    tables: dict[int, dict[int, str]] = {}
    while len(segment) >= 17:
        counts, number = segment[1:17], segment[0]
        symbols = iter(segment[17 : 17 + sum(counts)])
        codes, code = {}, 0
        for length, count in enumerate(counts, start=1):
            for symbol in (symbol for _, symbol in zip(range(count), symbols, strict=False)):
                codes[symbol] = f"{code:0{length}b}"
                code += 1
            code <<= 1
        tables[number] = codes
        segment = segment[17 + sum(counts) :]
    return tables


def ends_with(data: memoryview, scan: LosslessScan, values: NDArray[Any]) -> bool:
    """Whether the scan ends with the code of the last of `values` (H, W)."""
    if min(values.shape) < 2:
        return True
    differences = _differences(values[-2:, -SAMPLES - 1 :].astype(np.int64), scan.predictor)
    wanted = "".join(_coded(int(difference), scan.codes) for difference in differences)
    length = len(wanted) // 8 + 4
    raw = bytes(data[max(scan.start, scan.end - 2 * length) : scan.end]).rstrip(b"\xff")  # FF before a marker fills
    tail = raw.replace(b"\xff\x00", b"\xff")[-length:]
    stored = "".join(f"{byte:08b}" for byte in tail)
    return wanted in stored[max(0, len(stored) - len(wanted) - SPARE_BITS) :]


def _differences(rows: NDArray[np.int64], predictor: int) -> NDArray[np.int64]:
    """Of the second row's samples but the first, modulo 2^16, from -32767 to 32768 (T.81 H.1.2.1)."""
    left, above, corner = rows[1, :-1], rows[0, 1:], rows[0, :-1]
    predicted = {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + ((above - corner) >> 1),
        6: above + ((left - corner) >> 1),
        7: (left + above) >> 1,
    }[predictor]
    differences: NDArray[np.int64] = (rows[1, 1:] - predicted + 32767) % 65536 - 32767
    return differences


def _coded(difference: int, codes: dict[int, str]) -> str:
    """Code of the category, then the bits within it; a category without a code gives what no scan holds."""
    category = abs(difference).bit_length()
    code = codes.get(category, "-")
    if category in (0, 16):
        return code
    return code + f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"
