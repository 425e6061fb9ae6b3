"""Every public method of the four clients of tritonclient, by reflection: once with success, once without."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
from calls import CASES, Reason
from conftest import Gateway
from flavours import MODULES, Flavour, connect


def methods(name: str) -> list[str]:
    """The public methods of a client."""
    client = MODULES[name].InferenceServerClient
    return [method for method, _ in inspect.getmembers(client, callable) if not method.startswith("_")]


EVERY = [(name, method) for name in MODULES for method in methods(name)]




@pytest.fixture(scope="module")
def clients(gateway: Gateway) -> Iterator[dict[str, Flavour]]:
    connected = {name: connect(name, gateway) for name in MODULES}
    yield connected
    for client in connected.values():
        client.close()


@pytest.mark.parametrize(("name", "method"), EVERY)
def test_works(clients: dict[str, Flavour], gateway: Gateway, name: str, method: str) -> None:
    case = CASES[method]
    if isinstance(case.works, Reason):
        pytest.skip(case.works.text)
    case.works(clients[name], gateway)


@pytest.mark.parametrize(("name", "method"), EVERY)
def test_fails(clients: dict[str, Flavour], gateway: Gateway, name: str, method: str) -> None:
    case = CASES[method]
    if isinstance(case.fails, Reason):
        pytest.skip(case.fails.text)
    case.fails(clients[name], gateway)


def test_each_case_is_a_method() -> None:
    """Nothing in the table is left of a method that is gone."""
    assert set(CASES) <= {method for _, method in EVERY}
