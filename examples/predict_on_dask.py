"""Score recordings on a dask cluster: predict.py, with its recordings shared out by dask.

    python -m pip install -r requirements-dask.txt
    python examples/predict_on_dask.py --scheduler tcp://head:8786 MODEL RECORDINGS --output FILE
    python examples/predict_on_dask.py --local 2 MODEL RECORDINGS --output FILE     # to try it: a
    cluster of two processes here

All other flags are those of predict.py, and what it writes is what one process writes, byte for
byte. Every machine must see the recordings, the model, the output's folder, this folder and the
Python that runs this script under the same paths, as on a shared file system. A worker has one
model and decoders of its own. If it dies, another one goes on with its block of recordings; if this
script dies, the same command goes on.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts of the project

import predict
from configs import run_main
from examples.on_dask import joblib_on, read_flags
from inference.sharing import close_decoders


def main() -> int:
    """Run predict.py with dask behind joblib, and say which worker decoded how much."""
    flags, rest = read_flags(__doc__)
    if flags.local and "--num-workers" not in rest:  # the processes share the cores of this machine
        rest += ["--num-workers", str(max(1, (os.cpu_count() or 1) // flags.local))]
    sys.argv[1:] = rest
    with joblib_on(flags) as client:
        status = predict.main()
        for address, n_decoders in client.run(close_decoders).items():
            print(f"{address} kept {n_decoders} decoder processes")
    return status


if __name__ == "__main__":
    run_main(main)
