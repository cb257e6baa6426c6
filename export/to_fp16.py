"""Half precision inside, float32 at the edges.

Every weight, and every operation between, becomes float16 in the file itself (strong typing: no engine has to be
told). `image`, `logits`, `cam` and `embedding` stay float32 behind Cast nodes, so that every precision is fed alike.
"""

import numpy as np
import onnx
from onnx import numpy_helper
from onnxconverter_common.float16 import convert_float_to_float16

from edgecxr.errors import StageError

__all__ = ["to_fp16"]

LARGEST = float(np.finfo(np.float16).max)


def to_fp16(model_bytes: bytes) -> bytes:
    """An FP32 or QDQ graph with a float16 body (scales included). Raises StageError for a value beyond 65504."""
    model = onnx.load_from_string(model_bytes)
    for item in model.graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT and np.abs(numpy_helper.to_array(item)).max(initial=0.0) > LARGEST:
            raise StageError(f"{item.name} holds values beyond float16 (65504); train with weight decay, or keep FP32")
    half = convert_float_to_float16(model, min_positive_val=0.0, max_finite_val=LARGEST, keep_io_types=True)
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return bytes(half.SerializeToString())
