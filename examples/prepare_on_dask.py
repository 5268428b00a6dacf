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

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts of the project

import prepare_audios
from configs import configure_logger, load_config, run_main
from examples.on_dask import joblib_on, read_flags


def main() -> int:
    """Run prepare_audios.py with dask behind joblib, and say which worker did how much."""
    flags, rest = read_flags(__doc__)
    configure_logger(load_config(rest))
    sys.argv[1:] = rest
    with joblib_on(flags) as client:
        status = prepare_audios.main()
        for address, n_decoders in client.run(prepare_audios.close_decoders).items():
            print(f"{address} kept {n_decoders} decoder processes")
    return status


if __name__ == "__main__":
    run_main(main)
