#!/usr/bin/env bash
# Lazy doors of packages: what does lazy_loader make of a stub that renames what it imports?
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install -q --disable-pip-version-check lazy-loader==0.6 2>/dev/null
mkdir "$here/shop"
cat > "$here/shop/__init__.py" <<'PY'
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
PY
echo "from .fruit import apple as pear" > "$here/shop/__init__.pyi"
echo 'apple = "an apple"' > "$here/shop/fruit.py"
cat > "$here/trial.py" <<'PY'
from importlib.metadata import version

import shop

print("lazy-loader", version("lazy-loader"))
print("__all__:", shop.__all__)
for name in ("pear", "apple"):
    print(f"shop.{name}:", getattr(shop, name, "no such attribute"))
PY
cd "$here"
seen=$("$here/venv/bin/python" "$here/trial.py" 2>&1)
echo "$seen"
echo "In words: a stub that says 'from .fruit import apple as pear' tells a type checker that the package has pear. attach_stub"
echo "reads the imported name and not the new one: the package has apple at run time, and pear is no attribute of it."
[[ "$seen" == *"shop.pear: no such attribute"* && "$seen" == *"shop.apple: an apple"* ]] || { echo "the behaviour has changed"; exit 1; }
