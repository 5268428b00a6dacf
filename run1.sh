set -ex
cd /work/wt/evidence
PY=/work/main/.venv/bin/python
R=/work/runs/birds
$PY prepare_audios.py --root $R --train-audio-dir /work/shared/birds/train_audio --metadata-path /work/shared/birds/train_metadata.csv
$PY split_data.py --root $R --train-audio-dir /work/shared/birds/train_audio --metadata-path /work/shared/birds/train_metadata.csv --seed 8
$PY /work/shared/yardstick/field.py $R --write $R/scenes
$PY train.py --config recipes/small_set.yaml --root $R --metadata-path /work/shared/birds/train_metadata.csv --background-dir $R/bg --weights-file /work/shared/weights/tf_efficientnet_lite0.safetensors --base-model-name tf_efficientnet_lite0 --probe-c 0.03 --folds 0 --experiment-number 1
