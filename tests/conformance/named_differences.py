"""The differences from MLServer that are known, each with who follows the specification, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Differences = dict[str, tuple[Any, Any]]

#: Questions that MLServer answers although something in them is wrong.
LENIENT = {
    "shape as strings": "`shape` is an array of numbers",
    "input twice": "one tensor a name; which of the two is meant is a guess",
    "negative shape": "-1 has a meaning in metadata only; a request's shape is what its data have",
    "a number as text in INT64": "data have the JSON type of their datatype",
    "1.5 in INT32": "the value is cut to 1 without a word",
    "null in FP32": "no JSON type of FP32; it becomes NaN without a word",
}


@dataclass(frozen=True)
class Named:
    """A difference: which members it explains, and what is to be said of it."""

    title: str
    explains: Callable[[str, Differences], set[str]]
    ours: str
    theirs: str
    follows: str
    why: str


def members(*names: str) -> Callable[[str, Differences], set[str]]:
    return lambda _, found: set(names) & set(found)


def pair(member: str, ours: Any, theirs: Any) -> Callable[[str, Differences], set[str]]:
    """All of the differences, where this member differs in just this way."""
    return lambda _, found: set(found) if found.get(member) == (ours, theirs) else set()


def questions(*names: str) -> Callable[[str, Differences], set[str]]:
    """All of the differences of these questions."""
    return lambda question, found: set(found) if question in names else set()


def only(member: str, ours: Any, theirs: Any) -> Callable[[str, Differences], set[str]]:
    return lambda _, found: {member} if found.get(member) == (ours, theirs) else set()


def made_up_id(_: str, found: Differences) -> set[str]:
    ours, theirs = found.get("id", ("", ""))
    return {"id"} if ours in ("nothing", "") and len(theirs) == 36 else set()


def no_body(_: str, found: Differences) -> set[str]:
    return set(found) if found.get("body") == ("nothing", "no JSON") else set()


METADATA = [
    Named(
        "The server's name",
        lambda question, found: {"name"} & set(found) if question == "server metadata" else set(),
        "`tidegate`",
        "`mlserver`",
        "both",
        "each has its own",
    ),
    Named(
        "`versions` in a model's metadata",
        members("versions"),
        "the versions that serve",
        "an empty list",
        "both",
        "the member is optional",
    ),
]

HTTP = [
    Named(
        "Health and readiness",
        no_body,
        '`{"live": true}`, `{"name": "digits", "ready": true}`',
        "200 with an empty body",
        "Tidegate",
        "the specification gives the bodies",
    ),
    *METADATA,
    Named(
        "An id where the request has none",
        made_up_id,
        "no `id`",
        "an `id` made up by the server",
        "Tidegate",
        "`id` is the identifier given in the request",
    ),
    Named(
        "The body of an error",
        only("error", "a string", "not a string"),
        '`{"error": "..."}` whatever is wrong',
        '`{"detail": ...}` where the path or the method is wrong',
        "Tidegate",
        "an error is a JSON object with the string `error`",
    ),
    Named(
        "The status of a request that is no request",
        pair("status", 400, 422),
        '400 and `{"error": "..."}`',
        '422 and `{"detail": [...]}`',
        "Tidegate",
        "errors are 400 with the string `error`; `tritonclient` cannot read the other form",
    ),
    Named(
        "A JSON body that is called `application/octet-stream`",
        questions("JSON as octets"),
        "200: the content type is not looked at",
        "422",
        "both",
        "the specification is silent; clients of Triton send it so",
    ),
    *(
        Named(
            f"Lenient: {question}",
            lambda asked, found, question=question: set(found)
            if asked == question and found.get("status") == (400, 200)
            else set(),
            "400, and what was expected",
            "200",
            "Tidegate",
            why,
        )
        for question, why in LENIENT.items()
    ),
]

GRPC = [
    *METADATA,
    Named(
        "Whether an unknown model is ready",
        pair("status", "OK", "UNKNOWN"),
        "`ready` is false",
        "the status UNKNOWN",
        "Tidegate",
        "the answer to ModelReady is `ready`",
    ),
    Named(
        "The form of answers to typed contents",
        only("contents", "raw", "typed"),
        "`raw_output_contents`, always",
        "typed contents, raw ones only to raw ones",
        "both",
        "either is allowed; `tritonclient` reads raw ones only",
    ),
    Named(
        "Raw contents of a wrong size",
        only("status", "INVALID_ARGUMENT", "INTERNAL"),
        "INVALID_ARGUMENT",
        "INTERNAL",
        "Tidegate",
        "the fault is the request's",
    ),
    Named(
        "More raw contents than inputs",
        questions("raw, one tensor too many"),
        "INVALID_ARGUMENT",
        "OK: what is too much is passed over",
        "Tidegate",
        "raw contents are one for each input",
    ),
    Named(
        "Raw and typed contents in one request",
        questions("raw and typed"),
        "INVALID_ARGUMENT",
        "OK: the raw ones win",
        "Tidegate",
        "where raw contents are used they must be used for all tensors, and no others",
    ),
]


def explain(named: list[Named], question: str, found: Differences) -> tuple[list[Named], Differences]:
    """The named differences among those found, and those that nobody named."""
    used = []
    left = dict(found)
    for difference in named:
        explained = difference.explains(question, left)
        if explained:
            used.append(difference)
            left = {name: pair for name, pair in left.items() if name not in explained}
    return used, left
