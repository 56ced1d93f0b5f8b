"""Parse ONNX files with TensorRT-RTX and print what it said, as JSON; runs in a process of its own."""

from __future__ import annotations

import json
import sys

import tensorrt_rtx as trt

logger = trt.Logger(trt.Logger.ERROR)
report = {}
for path in sys.argv[1:]:
    network = trt.Builder(logger).create_network()
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(path)
    report[path] = {
        "parsed": parsed,
        "inputs": [network.get_input(k).name for k in range(network.num_inputs)],
        "outputs": [network.get_output(k).name for k in range(network.num_outputs)],
        "errors": [parser.get_error(k).desc() for k in range(parser.num_errors)],
    }
print(json.dumps(report))
