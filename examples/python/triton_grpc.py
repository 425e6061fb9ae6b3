"""Digits over gRPC with NVIDIA's client, one by one on a stream: pip install tritonclient[grpc]

Prints an image's digit as soon as its answer comes, then what the server counted:

    image 0 is a 5
    ...
    5 images, 5 requests
"""

import csv
import queue
import sys

import numpy as np
import tritonclient.grpc as triton

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:8001"
client = triton.InferenceServerClient(address)

with open("models/digits/samples.csv") as file:
    images = np.array(list(csv.reader(file))[1:6], np.float32)[:, :64].reshape(-1, 1, 8, 8)


def counts():
    [model] = client.get_inference_statistics("digits", "1").model_stats
    return np.array([model.inference_count, model.inference_stats.success.count])


before = counts()
answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)))
for n, pixels in enumerate(images):
    image = triton.InferInput("image", list(pixels.shape), "FP32")
    image.set_data_from_numpy(pixels)
    client.async_stream_infer("digits", [image], request_id=str(n))
for _ in images:
    result, error = answers.get(timeout=10)
    if error is not None:
        sys.exit(f"refused: {error}")
    print(f"image {result.get_response().id} is a {result.as_numpy('label')[0]}")
client.stop_stream()

rows, requests = counts() - before
print(f"{rows} images, {requests} requests")
client.close()
