#!/usr/bin/env bash
# Everything to measure on a CUDA machine; needs no network. Parts of at most eight minutes each:
#     benchmarks/gpu.sh                       # all parts, then the table
#     benchmarks/gpu.sh vision/base tests     # these parts
#     benchmarks/gpu.sh table                 # the table of the parts that were run, for docs/benchmarks.md
# PYTHON is the interpreter and OUT the folder of the results, one JSON object a line. TOY=1 runs the same compositions
# in a size for tests on the CPU, without compilation.
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-python}"
out="${OUT:-gpu-results}"
parts=(tests vision/base vision/large vision/huge14 audio/base audio/large text/base text/large
  largest/vision largest/audio largest/text table)
toy=() uncompiled=()
if [[ "${TOY:-}" == 1 ]]; then toy=(--device cpu --toy); uncompiled=(--rounds 1 --variants "library;library, full bias;plain"); fi
mkdir -p "$out"

run() {
  case "$1" in
    tests) timeout 480 "$python" -m pytest -n0 -m gpu ../tests ;;
    largest/*) timeout 480 "$python" largest.py --modality "${1#*/}" --json "$out/${1//\//-}.jsonl" "${toy[@]}" ;;
    table) "$python" gpu.py --table "$out"/*.jsonl ;;
    */*) timeout 480 "$python" gpu.py --models "$1" --limit 450 --json "$out/${1//\//-}.jsonl" "${toy[@]}" "${uncompiled[@]}" ;;
    *) echo "no part $1; parts: ${parts[*]}" >&2; exit 2 ;;
  esac
}

failed=()
for part in "${@:-${parts[@]}}"; do
  echo "== $part" >&2
  run "$part" || failed+=("$part")
done
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
