#!/usr/bin/env bash
# Two tools of package structure that meet: import-linter 2.16 (grimp 3.19) and lazy-loader 0.6's stub files.
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install -q --disable-pip-version-check import-linter==2.16 grimp==3.19 lazy-loader==0.6 2>/dev/null
mkdir -p "$here/src/house/heavy" "$here/src/house/light"
cd "$here/src"
touch house/__init__.py
printf 'import lazy_loader\n\n__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n' > house/heavy/__init__.py
printf 'from .work import number as number\n' > house/heavy/__init__.pyi
printf 'import sqlite3\n\nnumber = len(sqlite3.sqlite_version)\n' > house/heavy/work.py
printf 'from house.heavy import number\n\nuses = number\n' > house/light/reader.py
touch house/light/__init__.py
cat > .importlinter <<'INI'
[importlinter]
root_package = house
include_external_packages = True

[importlinter:contract:light]
name = the light package never reaches sqlite3
type = forbidden
source_modules = house.light
forbidden_modules = sqlite3
INI
lint() { PYTHONPATH=. "$here/venv/bin/lint-imports" --no-cache 2>&1 | grep -E "KEPT|BROKEN" | tail -1 || true; }
by_stub=$(lint)
loaded=$(PYTHONPATH=. "$here/venv/bin/python" -c 'import sys, house.light.reader; print("sqlite3" in sys.modules)')
printf 'from house.heavy.work import number as number\n' > house/heavy/__init__.py
by_import=$(lint)
"$here/venv/bin/pip" list 2>/dev/null | grep -iE "^(import-linter|grimp|lazy[-_]loader) "
echo "door by stub:   $by_stub; sqlite3 loaded at run time: $loaded"
echo "door by import: $by_import"
echo "In words: a name that a package hands out through lazy_loader.attach_stub is loaded when it is imported, but"
echo "import-linter reads .py files alone: a forbidden contract that the same door breaks with a plain import is KEPT."
case "$by_stub" in *KEPT*) ;; *) exit 1 ;; esac
case "$by_import" in *BROKEN*) ;; *) exit 1 ;; esac
[ "$loaded" = True ]
