"""What the examples that run on a dask cluster share: the cluster, and joblib told to use it."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import joblib
from dask.distributed import Client, LocalCluster, WorkerPlugin

PROJECT = str(Path(__file__).resolve().parent.parent)


class KnowsTheProject(WorkerPlugin):
    """Lets each worker, those that join later too, import the project's scripts."""

    def setup(self, worker: object) -> None:
        """Run in a worker as it starts."""
        if PROJECT not in sys.path:
            sys.path.insert(0, PROJECT)


def read_flags(description: str | None) -> tuple[argparse.Namespace, list[str]]:
    """Read which cluster is meant; give that and the flags of the script that runs there."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--scheduler", help="address of a running cluster's scheduler")
    where.add_argument(
        "--local", type=int, default=0, help="make a cluster of this many processes here"
    )
    return parser.parse_known_args()


@contextlib.contextmanager
def cluster(scheduler: str | None, n_local: int) -> Iterator[Client]:
    """Connect to a cluster, or make one of processes with one thread each for the block."""
    with contextlib.ExitStack() as stack:
        address: object = scheduler
        if scheduler is None:
            how = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
            address = stack.enter_context(LocalCluster(n_workers=n_local, **how))
        yield stack.enter_context(Client(address))


@contextlib.contextmanager
def joblib_on(flags: argparse.Namespace) -> Iterator[Client]:
    """Let the workers of a cluster do what the block gives to joblib."""
    # They cannot import this module before they know where it is.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with cluster(flags.scheduler, flags.local) as client:
        client.register_plugin(KnowsTheProject())
        with joblib.parallel_config(backend="dask"):
            yield client
