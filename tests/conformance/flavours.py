"""The four clients of tritonclient behind one face: one table of calls then serves all of them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from conftest import LIMIT, Gateway
from served import datatype

T = TypeVar("T")

MODULES = {
    "http": tritonclient.http,
    "http.aio": tritonclient.http.aio,
    "grpc": tritonclient.grpc,
    "grpc.aio": tritonclient.grpc.aio,
}

#: Where the gRPC clients wrap what the HTTP clients give bare.
WRAPPED = {"get_model_config": "config", "get_model_repository_index": "models"}


class Flavour:
    """A client of one module, driven as if all of them were synchronous."""

    def __init__(self, name: str, address: str, **options: Any) -> None:
        self.name = name
        self.module = MODULES[name]
        self.is_grpc = name.startswith("grpc")
        self.is_aio = name.endswith("aio")
        self.runner = asyncio.Runner() if self.is_aio else None
        if name == "http":
            options = {"concurrency": 64, "network_timeout": LIMIT} | options
        if self.is_aio:
            self.client = self.wait(self.make(address, options))
        else:
            self.client = self.module.InferenceServerClient(address, **options)

    async def make(self, address: str, options: dict[str, Any]) -> Any:
        """The client's sessions belong to the loop that they are made in."""
        return self.module.InferenceServerClient(address, **options)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What comes of a coroutine of an asynchronous client."""
        assert self.runner is not None, f"{self.name} is synchronous"
        return self.runner.run(coroutine)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method; messages come as dictionaries, and without their wrapping."""
        function = getattr(self.client, method)
        if "as_json" in inspect.signature(function).parameters:
            kwargs.setdefault("as_json", True)
        answer = function(*args, **kwargs)
        if inspect.iscoroutine(answer):
            answer = self.wait(answer)
        return answer[WRAPPED[method]] if self.is_grpc and method in WRAPPED else answer

    def tensor(self, name: str, array: np.ndarray, binary: bool = True) -> Any:
        given = self.module.InferInput(name, list(array.shape), datatype(array))
        if self.is_grpc:
            given.set_data_from_numpy(array)
        else:
            given.set_data_from_numpy(array, binary_data=binary)
        return given

    def output(self, name: str, binary: bool = True, **kwargs: Any) -> Any:
        if not self.is_grpc:
            kwargs["binary_data"] = binary
        return self.module.InferRequestedOutput(name, **kwargs)

    def infer(self, model: str, arrays: dict[str, np.ndarray], **kwargs: Any) -> Any:
        given = [self.tensor(name, array) for name, array in arrays.items()]
        return self.call("infer", model, given, **kwargs)

    def close(self) -> None:
        self.call("close")
        if self.runner is not None:
            self.runner.close()

    def __enter__(self) -> Flavour:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(name: str, gateway: Gateway, **options: Any) -> Flavour:
    """A client of the gateway."""
    return Flavour(name, gateway.grpc if name.startswith("grpc") else gateway.http, **options)
