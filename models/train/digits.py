"""digits: handwritten digits of 8 by 8 pixels; version 1 a small MLP, version 2 a CNN."""

from __future__ import annotations

import csv
from pathlib import Path

import artifacts
import network
import numpy as np
from artifacts import constant, rounded
from onnx import TensorProto, helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 7
KERNELS = 16


def build(folder: Path) -> None:
    pixels, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        pixels, labels, test_size=300, stratify=labels, random_state=SEED
    )
    perceptron(folder / "1" / "model.onnx", train, train_labels)
    convolution(folder / "2" / "model.onnx", train, train_labels)
    images = test.reshape(-1, 8, 8).astype(np.float32)
    for version in ("1", "2"):
        path = folder / version / "model.onnx"
        accuracy = (artifacts.run(path, {"image": images})["label"] == test_labels).mean()
        print(f"digits version {version}: accuracy {accuracy:.4f} on {len(test)} images")
        cases = {
            "one image": {"image": images[:1]},
            "seven images": {"image": images[1:8]},
            "black": {"image": np.zeros((2, 8, 8), np.float32)},
            "white": {"image": np.full((1, 8, 8), 16, np.float32)},
        }
        artifacts.write_golden(path, cases)
    artifacts.write_requests(
        folder, {"image": images[:1]}, [{"image": image[None]} for image in images]
    )
    with (folder / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"image_{index}" for index in range(64)] + ["label"])
        for row, label in zip(test.astype(int), test_labels, strict=True):
            writer.writerow([*row, label])


def perceptron(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """64 pixels, 32 hidden units, 10 classes; trained on a few rows, so that it errs visibly."""
    pixels, labels = pixels[:220] / 16, labels[:220]
    rng = np.random.default_rng(SEED)
    weights = {
        "w1": rng.normal(0, 0.15, (64, 32)),
        "b1": np.zeros(32),
        "w2": rng.normal(0, 0.2, (32, 10)),
        "b2": np.zeros(10),
    }

    def gradient(w: network.Weights, rows: np.ndarray) -> tuple[float, network.Weights]:
        x, y = pixels[rows], labels[rows]
        hidden = np.maximum(x @ w["w1"] + w["b1"], 0)
        share = network.softmax(hidden @ w["w2"] + w["b2"])
        loss = -np.log(share[np.arange(len(y)), y]).mean()
        share[np.arange(len(y)), y] -= 1
        share /= len(y)
        back = (share @ w["w2"].T) * (hidden > 0)
        slopes = {
            "w2": hidden.T @ share,
            "b2": share.sum(axis=0),
            "w1": x.T @ back,
            "b1": back.sum(axis=0),
        }
        return loss, slopes

    weights = network.adam(weights, gradient, len(pixels), epochs=30, batch=32, rate=0.01, seed=SEED)
    # Pixels reach from 0 to 16: the scale goes into the first layer.
    nodes = [
        helper.make_node("Flatten", ["image"], ["pixels"], "flatten", axis=1),
        helper.make_node("Gemm", ["pixels", "w1", "b1"], ["sum1"], "layer1"),
        helper.make_node("Relu", ["sum1"], ["hidden"], "relu1"),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["scores"], "layer2"),
    ]
    constants = [
        constant("w1", rounded(weights["w1"] / 16)),
        *(constant(name, rounded(weights[name])) for name in ("b1", "w2", "b2")),
    ]
    write(path, nodes, constants, "Handwritten digits: a perceptron with 32 hidden units.")


def patches(images: np.ndarray) -> np.ndarray:
    """All 3 by 3 patches of 8 by 8 images: [rows, 36, 9]."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    return windows.reshape(len(images), 36, 9)


def convolution(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """16 kernels of 3 by 3, pooled by 2, and one layer over the 144 results."""
    seen = patches(pixels.reshape(-1, 8, 8) / 16)
    rng = np.random.default_rng(SEED + 1)
    weights = {
        "k": rng.normal(0, 0.3, (9, KERNELS)),
        "bk": np.zeros(KERNELS),
        "w": rng.normal(0, 0.1, (KERNELS * 9, 10)),
        "b": np.zeros(10),
    }

    def gradient(w: network.Weights, rows: np.ndarray) -> tuple[float, network.Weights]:
        x, y = seen[rows], labels[rows]
        n = len(y)
        maps = np.maximum(x @ w["k"] + w["bk"], 0).reshape(n, 3, 2, 3, 2, KERNELS)
        pooled = maps.max(axis=(2, 4))
        # ONNX flattens channels first.
        flat = pooled.transpose(0, 3, 1, 2).reshape(n, -1)
        share = network.softmax(flat @ w["w"] + w["b"])
        loss = -np.log(share[np.arange(n), y]).mean()
        share[np.arange(n), y] -= 1
        share /= n
        back = (share @ w["w"].T).reshape(n, KERNELS, 3, 3).transpose(0, 2, 3, 1)
        wins = (maps == pooled[:, :, None, :, None, :]) & (maps > 0)
        spread = (wins * back[:, :, None, :, None, :]).reshape(n, 36, KERNELS)
        slopes = {
            "w": flat.T @ share,
            "b": share.sum(axis=0),
            "k": np.einsum("npi,npk->ik", x, spread),
            "bk": spread.sum(axis=(0, 1)),
        }
        return loss, slopes

    weights = network.adam(weights, gradient, len(seen), epochs=40, batch=64, rate=0.01, seed=SEED)
    nodes = [
        helper.make_node("Unsqueeze", ["image", "axes"], ["channel"], "unsqueeze"),
        helper.make_node("Conv", ["channel", "k", "bk"], ["maps"], "conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["maps"], ["seen"], "relu"),
        helper.make_node(
            "MaxPool", ["seen"], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Flatten", ["pooled"], ["features"], "flatten", axis=1),
        helper.make_node("Gemm", ["features", "w", "b"], ["scores"], "layer"),
    ]
    kernels = (weights["k"] / 16).T.reshape(KERNELS, 1, 3, 3)
    constants = [
        constant("axes", np.array([1], np.int64)),
        constant("k", rounded(kernels)),
        *(constant(name, rounded(weights[name])) for name in ("bk", "w", "b")),
    ]
    write(path, nodes, constants, "Handwritten digits: a convolutional network with 16 kernels.")


def write(path: Path, nodes: list, constants: list, description: str) -> None:
    nodes = [
        *nodes,
        helper.make_node("Softmax", ["scores"], ["probabilities"], "softmax", axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], "argmax", axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 8, 8])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        ],
        constants,
    )
    artifacts.save(path, graph, description, {"": 17})
