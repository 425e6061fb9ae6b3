"""Binary tensors of 600 kB through an identity model, against a bare hyper server that gives the
body back."""

import argparse

import generator
import harness

SUMMARY = "bytes a second of large binary tensors, against a bare hyper server"
MODEL = "identity"
PATH = f"/v2/models/{MODEL}/infer"
TARGET = 0.8


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=8)


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    body = ["--body", models / MODEL / "binary",
            "--header", "content-type:application/octet-stream", "--header",
            f"inference-header-content-length:{(models / MODEL / 'binary.length').read_text()}"]
    with harness.scratch_folder() as folder:
        repository = harness.only(models, folder, MODEL)
        with (harness.gateway("tidegate", program, folder, repository) as gateway,
              harness.bare_hyper(arguments, folder, "--echo") as bare):
            servers = {"bare": (bare, PATH, body), "tidegate": (gateway, PATH, body)}
            reports = generator.rounds(arguments, servers, folder, arguments.rounds,
                                       seconds=arguments.seconds, connections=arguments.connections)
    medians = {name: generator.summary(each) for name, each in reports.items()}
    generator.table("600 kB in and out", medians)
    ratio = medians["tidegate"]["requests_per_second"] / medians["bare"]["requests_per_second"]
    print(f"\ntidegate/bare: {ratio:.2f} of the bytes/s, target at least {TARGET}: "
          f"{harness.verdict(ratio >= TARGET)}")
    harness.save("tensors", {"ratio": ratio, "medians": medians, "rounds": reports})
    return 0 if ratio >= TARGET else 1
