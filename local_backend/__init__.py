"""The in-house model server: ONNX packages behind Replicate's dialect, in a process of its own. Holds no secrets."""

import os

# Since 1.29 the official Linux wheels of ONNX Runtime report to their maker over the network, names and hashes of
# graphs included, and keep an identifier on disk. This switches all of it off, if set before the library is loaded:
# https://github.com/microsoft/onnxruntime/pull/27379
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
