#!/usr/bin/env bash
# Builds the wheel, installs it by itself, and runs it away from the checkout.
#
# What it depends on is borrowed from .venv, for to download TensorFlow anew would take minutes. That all of it is declared
# is what tests/test_dependencies.py sees to.
set -euo pipefail
cd "$(dirname "$0")/.."
place=build/wheel
rm -rf "$place" && mkdir -p "$place"
.venv/bin/pip wheel --quiet --no-deps --wheel-dir "$place" .
.venv/bin/python -m venv --without-pip "$place/env"
.venv/bin/pip --python "$place/env/bin/python" install --quiet --no-deps "$place"/*.whl

# A path in a .pth file comes after the environment's own; .pth files found there, such as the editable install's, are
# not followed.
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
own=$("$place/env/bin/python" -c "$packages")
.venv/bin/python -c "$packages" > "$own/borrowed.pth"

git ls-files rotnet_keras tui/rotnet_tui recipes | sed -e 's#^tui/##' -e 's#^recipes/#rotnet_keras/recipes/#' |
  while read -r file; do test -f "$own/$file" || { echo "not in the wheel: $file"; exit 1; }; done

PATH="$PWD/$place/env/bin:$PATH"
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT
cd "$away"
python -c "
import sys, rotnet_keras, rotnet_tui
assert all(package.__file__.startswith(sys.prefix) for package in (rotnet_keras, rotnet_tui)), rotnet_keras.__file__"
rotnet-keras --version
rotnet-tui --version
rotnet-keras recipes --json > recipes.json
rotnet-keras check $(python -c "import json; print(*(each['name'] for each in json.load(open('recipes.json'))))") > checked
rotnet-keras weights
rotnet-keras run quickstart train.steps=5 probe=[] --name wheel
test -s runs/wheel/report.html -a -s runs/wheel/export/backbone.keras
echo "The wheel works: $(wc -l < checked) recipes are valid, and one was run."
