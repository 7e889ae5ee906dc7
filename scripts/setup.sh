# shellcheck shell=bash
# The other scripts source this file: extras=dev; source scripts/setup.sh
# It makes .venv if there is none, installs metarun into it if something has changed, and sets `python` to the interpreter of .venv.
#
# On Linux, pip installs the CUDA build of torch, which takes several gigabytes. For the small CPU build, make .venv yourself, install
# torch into it as the site of torch says, and then run the script: it keeps a torch that fits constraints.txt.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "$0" "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  fail "${PYTHON:-Python 3.11 or newer} was not found or is older than 3.11; install it, or name one: PYTHON=/path/to/python3.12 $0"
}

make_venv() {
  local base
  base=$(find_python) || exit 1
  say "making .venv with $("$base" --version)"
  if ! "$base" -m venv .venv; then
    rm -rf .venv
    fail "'$base -m venv' failed; on Debian and Ubuntu the package python3-venv has it."
  fi
}

install_metarun() {
  local stamp=.venv/.installed wanted
  # An editable install fixes the list of folders, so a change of pyproject.toml needs a new install.
  wanted="${extras:-core} $(cat pyproject.toml constraints.txt | cksum) $(pwd -P)"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  # The packages of the tests include those of the quickstart.
  if [ -z "$extras" ] && [ "$(cat "$stamp" 2>/dev/null)" = "dev ${wanted#core }" ]; then return; fi
  say "installing metarun${extras:+[$extras]} into .venv (a few minutes the first time, torch is large)"
  rm -f "$stamp"
  "$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}" \
    || fail "pip could not install metarun; its message is above. If .venv is incomplete, delete it (rm -r .venv) and run $0 again."
  echo "$wanted" >"$stamp"
}

python=.venv/bin/python
extras=${extras:-}
[ -e .venv ] || make_venv
"$python" -c '' 2>/dev/null || fail ".venv does not work here; delete it (rm -r .venv) and run $0 again."
install_metarun
