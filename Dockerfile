# The pipeline in an image, for a CPU or for CUDA:
#
#   docker build --build-arg VARIANT=cuda --tag birds .
#   docker run --rm --gpus all --shm-size 8g --volume "$PWD/work:/work" birds python train.py --root /work
#
# --shm-size: the loader's processes hand images over in /dev/shm, of which Docker gives 64 MB; without
# it training stops with "Bus error" or "unable to open shared memory object". --num-workers 0 needs none.
# The driver is the host's, so CUDA needs nvidia-container-toolkit there and no CUDA image here.
FROM python:3.12-slim

ARG VARIANT=cpu
ARG USER_ID=1000

# soundfile, soxr and onnxruntime bring their libraries; torch.compile wants a compiler
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid "$USER_ID" --create-home birds

WORKDIR /birds
COPY . .
RUN bash docker/install.sh "$VARIANT" /opt/venv && mkdir /work && chown birds /work

USER birds
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
CMD ["python", "train.py", "--help"]
