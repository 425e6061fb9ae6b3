"""The gateway with the system's allocator, mimalloc and jemalloc: requests a second in interleaved
rounds, then memory after swaps under load. Builds three gateways from scratch, which takes long and
fills target/alloc-*."""

import argparse
import contextlib

import generator
import harness
import swap

SUMMARY = "the gateway with three allocators (builds take long)"
# The first is what the others are compared with.
ALLOCATORS = {
    "system": [],
    "mimalloc": ["--features", "mimalloc"],
    "jemalloc": ["--features", "jemalloc"],
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each round and gateway")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--load-on", choices=["http", "admin"], default="http",
                        help="the listener with the repository API (default: http)")


def run(arguments: argparse.Namespace) -> int:
    harness.build_load_tests(arguments)
    programs = {}
    for name, features in ALLOCATORS.items():
        target_dir = arguments.target_dir / f"alloc-{name}"
        if not arguments.no_build:
            harness.cargo_build("release", target_dir, *features)
        programs[name] = harness.existing(target_dir / "release" / "tidegate")

    with harness.scratch_folder() as folder, contextlib.ExitStack() as stack:
        repository = harness.copy_models(arguments, folder / "models")
        gateways = [stack.enter_context(harness.gateway(name, program, folder, repository))
                    for name, program in programs.items()]
        bodies = ["--bodies", harness.bodies(arguments)]
        rounds = generator.rounds(
            arguments, {server.name: (server, swap.PATH, bodies) for server in gateways}, folder,
            arguments.rounds, seconds=arguments.seconds, connections=arguments.connections)
    medians = {name: generator.summary(reports) for name, reports in rounds.items()}

    swaps = {}
    for name, program in programs.items():
        print(f"{arguments.swaps} swaps with {name}", flush=True)
        swaps[name] = swap.swap_under_load(arguments, program, arguments.swaps, progress=False)

    print_table(medians, swaps)
    harness.save("allocator", {"medians": medians, "rounds": rounds, "swaps": swaps})
    return 0 if all(result["failed"] == 0 for result in swaps.values()) else 1


def print_table(medians: dict[str, dict], swaps: dict[str, dict]) -> None:
    base = medians[next(iter(ALLOCATORS))]["requests_per_second"]
    print(f"\n{'allocator':9}  {'requests/s':>10}  {'to system':>9}  {'CPU µs/request':>14}  "
          f"{'p99 µs':>7}  {'RSS at the end':>14}  {'failed':>6}")
    for name, each in medians.items():
        result = swaps[name]
        print(f"{name:9}  {each['requests_per_second']:10.0f}  "
              f"{each['requests_per_second'] / base:9.2f}  {each['cpu_us_per_request']:14.1f}  "
              f"{each['p99_us']:7.0f}  {harness.megabytes(result['rss_end']):>14}  "
              f"{result['failed']:6}")
