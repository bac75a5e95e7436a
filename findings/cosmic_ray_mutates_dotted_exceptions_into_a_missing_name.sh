#!/usr/bin/env bash
# Mutation testing: what does Cosmic Ray's ExceptionReplacer make of an exception that is named with its module?
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
python3 -m venv "$here/venv"
"$here/venv/bin/pip" install -q --disable-pip-version-check cosmic-ray==8.7.0 2>/dev/null
cat > "$here/trial.py" <<'PY'
from importlib.metadata import version
from pathlib import Path

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

print("cosmic-ray", version("cosmic-ray"))
operator = get_operator("core/ExceptionReplacer")()
for name in ("KeyError", "json.JSONDecodeError", "(KeyError, OSError)"):
    source = f"try:\n    pass\nexcept {name}:\n    pass\n"
    Path("code.py").write_text(source)
    mutant = mutate_code(source, operator, 0)
    print(f"except {name}: -> {mutant.splitlines()[2] if mutant else None}")
PY
cd "$here"
seen=$("$here/venv/bin/python" "$here/trial.py" 2>&1)
echo "$seen"
echo "In words: of an exception that is named with its module the operator replaces the dot between the two names, so that the"
echo "mutant asks for a name that exists nowhere. Whenever such a handler is reached it ends in NameError: the mutant counts as"
echo "caught by any test that raises there, whatever the test asserts."
[[ "$seen" == *"except jsonCosmicRayTestingExceptionJSONDecodeError:"* && "$seen" == *"except CosmicRayTestingException:"* ]] || { echo "the behaviour has changed"; exit 1; }
