"""LitServe with an ONNX file on ONNX Runtime, for requests of the Open Inference Protocol.

`litserve_onnx.py FILE PATH PORT`
"""

import os
import sys

import litserve
import numpy as np
import onnxruntime

FILE, PATH, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


class OnnxModel(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(FILE, options)
        self.names = [output.name for output in self.session.get_outputs()]

    def decode_request(self, request: dict) -> dict:
        return {
            tensor["name"]: np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
            for tensor in request["inputs"]
        }

    def predict(self, inputs: dict) -> list:
        return self.session.run(None, inputs)

    def encode_response(self, outputs: list) -> dict:
        return {"outputs": [
            {"name": name, "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()}
            for name, array in zip(self.names, outputs)
        ]}


if __name__ == "__main__":
    api = OnnxModel(api_path=PATH)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=os.cpu_count())
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
