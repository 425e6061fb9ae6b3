"""A runtime of MLServer for ONNX files, on ONNX Runtime: what MLServer itself makes of the protocol shows."""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput
from mlserver.utils import get_model_uri


def decode(tensor: RequestInput) -> np.ndarray:
    if tensor.datatype != "BYTES":
        return NumpyCodec.decode_input(tensor)
    words = np.array(StringCodec.decode_input(tensor), dtype=np.object_)
    return words.reshape(tensor.shape)


def encode(name: str, array: np.ndarray) -> ResponseOutput:
    if array.dtype == np.object_:
        output = StringCodec.encode_output(name, array.ravel().tolist())
    else:
        output = NumpyCodec.encode_output(name, array)
    # The codecs make matrices of vectors; the model's shape is what clients ask for.
    return output.model_copy(update={"shape": list(array.shape)})


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(await get_model_uri(self.settings), options)
        self.names = [output.name for output in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        wanted = [output.name for output in payload.outputs or []] or self.names
        try:
            inputs = {tensor.name: decode(tensor) for tensor in payload.inputs}
            arrays = self.session.run(wanted, inputs)
        except Exception as error:
            # Whatever the codec or the engine dislike is the request's fault: 400, not 500.
            raise InferenceError(str(error)) from error
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[encode(name, array) for name, array in zip(wanted, arrays, strict=True)],
        )
