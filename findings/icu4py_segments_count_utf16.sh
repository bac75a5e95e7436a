#!/usr/bin/env bash
# Words of a Python string by icu4py: do the positions that its breakers give fit the string that they were given?
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install -q --disable-pip-version-check icu4py==1.2.0 2>/dev/null
cat > "$here/trial.py" <<'PY'
from importlib.metadata import version

from icu4py import icu_version
from icu4py.breakers import WordBreaker

print("icu4py", version("icu4py"), "ICU", icu_version)
wrong = {}
for text in ("Anna lives in Oslo", "😀 Anna lives in Oslo", "𠮷野家 is in 東京"):
    texts = list(WordBreaker(text, "en"))
    slices = [text[start:end] for start, end in WordBreaker(text, "en").segments()]
    wrong[text] = texts != slices
    print(ascii(text), "\n  iterated:", ascii(texts), "\n  by segments():", ascii(slices))
print("wrong slices:", *wrong.values())
PY
seen=$("$here/venv/bin/python" "$here/trial.py")
echo "$seen"
echo "In words: segments() counts in units of UTF-16 and a Python string in characters, so that behind an emoji or a rare"
echo "ideograph every slice is off by one, without an error; iterating over the same breaker gives the right words."
[[ "$seen" == *"wrong slices: False True True"* ]] || { echo "the behaviour has changed"; exit 1; }
