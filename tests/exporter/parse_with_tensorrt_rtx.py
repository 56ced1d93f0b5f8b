"""Parse an ONNX file with TensorRT-RTX and print what it said, as JSON; runs in a process of its own."""

from __future__ import annotations

import json
import sys

import tensorrt_rtx as trt

logger = trt.Logger(trt.Logger.ERROR)
network = trt.Builder(logger).create_network()
parser = trt.OnnxParser(network, logger)
report = {
    "parsed": parser.parse_from_file(sys.argv[1]),
    "inputs": [network.get_input(k).name for k in range(network.num_inputs)],
    "outputs": [network.get_output(k).name for k in range(network.num_outputs)],
    "errors": [parser.get_error(k).desc() for k in range(parser.num_errors)],
}
print(json.dumps(report))
