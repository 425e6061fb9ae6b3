"""Digits over HTTP with NVIDIA's client: pip install tritonclient[http]

Prints the model's signature and, for each of five images, the digit that it shows and how sure the model is:

    digits: image FP32 [-1, 8, 8] -> probabilities FP32 [-1, 10], label INT64 [-1]
    it is a 5 (98 %), the label says 5
    ...
"""

import csv
import sys

import numpy as np
import tritonclient.http as triton

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:8000"
client = triton.InferenceServerClient(address)


def signature(tensors):
    return ", ".join(f"{tensor['name']} {tensor['datatype']} {tensor['shape']}" for tensor in tensors)


metadata = client.get_model_metadata("digits")
print(f"digits: {signature(metadata['inputs'])} -> {signature(metadata['outputs'])}")

with open("models/digits/samples.csv") as file:
    rows = np.array(list(csv.reader(file))[1:6], np.float32)
images, labels = rows[:, :64].reshape(-1, 8, 8), rows[:, 64].astype(int)

image = triton.InferInput("image", list(images.shape), "FP32")
image.set_data_from_numpy(images)  # goes as bytes behind the JSON, and so do the answers
answer = client.infer("digits", [image], request_id="example-1")

for scores, digit, label in zip(answer.as_numpy("probabilities"), answer.as_numpy("label"), labels):
    print(f"it is a {digit} ({round(100 * scores.max())} %), the label says {label}")
