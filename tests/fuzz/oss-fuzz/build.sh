#!/bin/bash -eu
# OSS-Fuzz runs this in the checkout: one fuzzer for each reader, and what it starts from.

pip3 install . onnx h5py safetensors
cd tests/fuzz
readers=$(python3 -c 'import fuzz; print(*fuzz.NAMES)')
for reader in $readers; do
  program=fuzz_$reader
  printf 'import sys\n\nimport fuzz\n\nfuzz.one("%s", sys.argv[1:])\n' "$reader" > "$program.py"
  # What is imported by name, or late, PyInstaller has to be told of.
  compile_python_fuzzer "$program.py" --paths . --paths ../support \
    --hidden-import readers --hidden-import judge --hidden-import onnx_models \
    --collect-submodules fastlayer --collect-submodules onnx
  python3 fuzz.py seeds "$reader" --folder "seeds/$reader"
  (cd "seeds/$reader" && zip -q -r "$OUT/${program}_seed_corpus.zip" .)
done
