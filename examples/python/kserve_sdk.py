"""Digits with the KServe SDK, by each of its protocols: pip install kserve

Prints the same digit three times:

    REST, V1: it is a 5
    REST, V2: it is a 5
    gRPC, V2: it is a 5
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

server = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
grpc_address = sys.argv[2] if len(sys.argv) > 2 else "localhost:8001"

with open("models/digits/request.json") as file:
    pixels = np.array(json.load(file)["inputs"][0]["data"], np.float32).reshape(1, 8, 8)


def request():
    image = InferInput("image", list(pixels.shape), "FP32")
    image.set_data_from_numpy(pixels)
    return InferRequest(model_name="digits", infer_inputs=[image])


async def main():
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    answer = await v1.infer(server, {"instances": pixels.tolist()}, model_name="digits")
    print(f"REST, V1: it is a {answer['predictions'][0]['label']}")

    v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
    answer = await v2.infer(server, request(), model_name="digits")
    print(f"REST, V2: it is a {answer.get_output_by_name('label').as_numpy()[0]}")

    grpc = InferenceGRPCClient(grpc_address)
    answer = await grpc.infer(request())
    print(f"gRPC, V2: it is a {answer.get_output_by_name('label').as_numpy()[0]}")
    for client in (v1, v2, grpc):
        await client.close()


asyncio.run(main())
