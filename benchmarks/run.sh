#!/usr/bin/env bash
# Speed beside other libraries, in an environment of its own: torch first, then the peers without their dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
stamp=.venv-bench/.installed

if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ benchmarks/requirements.txt -nt "$stamp" ]; then
    [ -x .venv-bench/bin/python ] || "$python" -m venv .venv-bench
    echo "Installing into .venv-bench ..."
    pip=(.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" -c constraints.txt torch
    "${pip[@]}" -c constraints.txt -e .
    "${pip[@]}" --no-deps -r benchmarks/requirements.txt
    touch "$stamp"
fi

.venv-bench/bin/python - <<'PY'
import importlib.util
import torch

if torch.__version__.split("+")[0] != "2.13.0" or importlib.util.find_spec("torchvision"):
    raise SystemExit(f"expected torch 2.13.0 without torchvision, found torch {torch.__version__}")
print("torch", torch.__version__, "-", torch.get_num_threads(), "threads")
PY

export PYTHONPATH=benchmarks KEOPS_CACHE_FOLDER="$PWD/.venv-bench/keops"
for name in couplings objectives kernel_attention exact_field; do
    printf '\n== %s\n' "$name"
    .venv-bench/bin/python -m "$name" --json "benchmarks/$name.json"
done
