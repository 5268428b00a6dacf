#!/usr/bin/env bash
# The whole pipeline on a synthetic archive, from recordings to a plot; `make demo` runs it in its own environment.
set -euo pipefail
cd "$(dirname "$0")/.."

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

run python examples/make_sample_data.py --output demo/data --species 6 --recordings 24 --seconds 8
run python prepare_audios.py --config examples/demo.yaml
run python split_data.py --config examples/demo.yaml
run python dataset.py --config examples/demo.yaml --show 6 --save demo/training_images.png
run python train.py --config examples/demo.yaml
run python plot_loss_metric.py demo/models/Exp_1/fold_0 --save demo/loss_metric.png
run python probe.py --config examples/demo.yaml
run python evaluate.py demo/models/Exp_1 --table demo/data/train_metadata.csv --draws 200
run python compare.py demo/models/Exp_1 demo/models/Exp_1_probe --draws 200 --output demo/differences.csv
