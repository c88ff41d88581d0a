"""A model for MLServer: doubles numbers, and turns text round. Its inputs say what they are, as the protocol has it."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class Doubling(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = []
        for tensor in payload.inputs:
            if tensor.datatype == "BYTES":
                texts = [text[::-1] for text in StringCodec.decode_input(tensor)]
                if "fail" in [text[::-1] for text in texts]:
                    raise InferenceError("it was told to fail")
                outputs.append(StringCodec.encode_output(f"{tensor.name}_turned", texts))
            else:
                outputs.append(NumpyCodec.encode_output(f"{tensor.name}_doubled", NumpyCodec.decode_input(tensor) * 2))
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs)
