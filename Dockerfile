# All bundles behind `pulmozoo run`; docs/container.md has the commands. Research only; not for clinical use.
# CPU:  docker build -t pulmozoo .
# CUDA: docker build -t pulmozoo:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

ARG TORCH=2.13.0
# PyPI's build of PyTorch brings the CUDA libraries (some GB); the host needs the driver only.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch==${TORCH}"

# dicom,itk also reads MHA and NRRD (1.5 GB more).
ARG EXTRAS=dicom
WORKDIR /opt/pulmozoo
COPY LICENSE README.md pyproject.toml ./
COPY shared shared
RUN python -m pip install --no-cache-dir --editable ".[${EXTRAS}]" "torch==${TORCH}"
COPY bundles bundles

# Whoever runs it (docker run --user) needs no home of their own.
ENV HOME=/tmp
RUN useradd --no-create-home --uid 1000 pulmozoo
USER 1000
WORKDIR /data
ENTRYPOINT ["pulmozoo", "run"]
CMD ["--help"]
