#!/usr/bin/env bash
# What the Dockerfile does to its image, step by step; it runs without Docker, too.
#
#   bash docker/install.sh cpu .venv        packages for a CPU, into a virtual environment
#   bash docker/install.sh cuda .venv       with CUDA 12.6 inside the wheels of torch
#   bash docker/install.sh cpu .venv --dry  only says what it would run
set -euo pipefail

variant=${1:-}
venv=${2:-}
dry=${3:-}
case $variant in
    cpu) index=https://download.pytorch.org/whl/cpu ;;
    cuda) index=https://download.pytorch.org/whl/cu126 ;;
    *)
        echo "error: unknown variant '$variant'; choose cpu or cuda" >&2
        exit 2
        ;;
esac
if [ -z "$venv" ]; then
    echo "error: name the folder of the virtual environment, such as .venv" >&2
    exit 2
fi

run() {
    echo "$*"
    if [ "$dry" != --dry ]; then "$@"; fi
}

cd "$(dirname "$0")/.."
pip=("$venv/bin/python" -m pip install --no-cache-dir --constraint constraints.txt)
run python3 -m venv "$venv"
run "${pip[@]}" --index-url "$index" torch torchvision
run "${pip[@]}" --requirement requirements.txt
run "${pip[@]}" --requirement requirements-export.txt
run "$venv/bin/python" train.py --help
