"""Prepare recordings on a dask cluster: prepare_audios.py, with its files shared out by dask.

    python -m pip install -r requirements-dask.txt
    python examples/prepare_on_dask.py --scheduler tcp://head:8786 --root /shared/birds
    python examples/prepare_on_dask.py --local 4 --root birds     # to try it: a cluster of four
    processes here

All other flags are those of prepare_audios.py. Every machine must see the recordings, this folder
and the Python that runs this script under the same paths, as on a shared file system. A worker
decodes in a process of its own as well, so a recording that crashes or hangs its decoder costs that
recording there too, and the report is the same.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts of the project

import joblib
from dask.distributed import Client, LocalCluster, WorkerPlugin

import prepare_audios
from configs import configure_logger, load_config, run_main

PROJECT = str(Path(prepare_audios.__file__).resolve().parent)


class KnowsTheProject(WorkerPlugin):
    """Lets each worker, those that join later too, import the project's scripts."""

    def setup(self, worker: object) -> None:
        """Run in a worker as it starts."""
        if PROJECT not in sys.path:
            sys.path.insert(0, PROJECT)


@contextlib.contextmanager
def cluster(scheduler: str | None, n_local: int) -> Iterator[Client]:
    """Connect to a cluster, or make one of processes with one thread each for the block."""
    with contextlib.ExitStack() as stack:
        address: object = scheduler
        if scheduler is None:
            how = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
            address = stack.enter_context(LocalCluster(n_workers=n_local, **how))
        yield stack.enter_context(Client(address))


def main() -> int:
    """Run prepare_audios.py with dask behind joblib, and say which worker did how much."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--scheduler", help="address of a running cluster's scheduler")
    where.add_argument(
        "--local", type=int, default=0, help="make a cluster of this many processes here"
    )
    flags, rest = parser.parse_known_args()
    configure_logger(load_config(rest))
    sys.argv[1:] = rest
    with cluster(flags.scheduler, flags.local) as client:
        client.register_plugin(KnowsTheProject())
        with joblib.parallel_config(backend="dask"):
            status = prepare_audios.main()
        for address, n_decoders in client.run(prepare_audios.close_decoders).items():
            print(f"{address} kept {n_decoders} decoder processes")
    return status


if __name__ == "__main__":
    run_main(main)
