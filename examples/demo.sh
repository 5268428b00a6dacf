#!/usr/bin/env bash
# The whole pipeline on a synthetic archive, from recordings to a plot; `make demo` runs it in its own environment.
set -euo pipefail
cd "$(dirname "$0")/.."

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

cat <<'EOF'
The demo makes 121 recordings of six made-up species in demo/, prepares them, deals them into folds,
trains a small network on one fold for 60 epochs, and draws what it learned. On two processor cores
that takes five to ten minutes, most of them in train.py. It needs no network, and 100 MB of disk.
Ctrl-C stops it; the same command goes on.
EOF

run python examples/make_sample_data.py --output demo/data --species 6 --recordings 24 --seconds 8
run python prepare_audios.py --config examples/demo.yaml
run python split_data.py --config examples/demo.yaml
run python dataset.py --config examples/demo.yaml --show 6 --save demo/training_images.png
run python train.py --config examples/demo.yaml
run python plot_loss_metric.py demo/models/Exp_1/fold_0 --save demo/loss_metric.png
run python probe.py --config examples/demo.yaml
run python evaluate.py demo/models/Exp_1 --table demo/data/train_metadata.csv --draws 200
run python compare.py demo/models/Exp_1 demo/models/Exp_1_probe --draws 200 --output demo/differences.csv
run python plan.py --root demo --output demo/plan.yaml --no-trial

cat <<'EOF'

Three pictures to look at:
  demo/training_images.png   what the network sees
  demo/loss_metric.png       how it learned
  demo/plan.html             what plan.py saw of the recordings, and the settings that follow
How good it is, species by species: demo/models/Exp_1/evaluation/evaluation.html

Your own recordings, in one folder a species:
  python plan.py --train-audio-dir my/recordings --from-folders
EOF
