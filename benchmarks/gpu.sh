#!/usr/bin/env bash
# Training steps of the published sizes on a CUDA machine, as a Markdown table; needs no network. Arguments go to gpu.py.
#     PYTHON=.venv/bin/python benchmarks/gpu.sh --json steps.jsonl
set -euo pipefail
cd "$(dirname "$0")"
exec "${PYTHON:-python}" gpu.py "$@"
