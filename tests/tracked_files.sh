#!/usr/bin/env bash
# Fails if a file in git names a folder of somebody's machine or a package registry: such a line works in one place only.
# Cargo.lock's `registry+https://github.com/rust-lang/crates.io-index` is cargo's name for crates.io, not an address.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! git rev-parse --is-inside-work-tree >/dev/null; then
  echo "git lists no tracked files here (see its message above)" >&2
  exit 1
fi

bad=0
# look WHAT GREP-ARGUMENTS...: prints the tracked text lines that match. Letters in brackets keep this file from matching.
look() {
  local what=$1 status=0
  shift
  git grep -nI "$@" || status=$?
  case $status in
    0) echo "^ $what" >&2 && bad=1 ;;
    1) ;;
    *) echo "git grep failed with status $status" >&2 && exit 1 ;;
  esac
}

look "a path of one machine" -E -e '(^|[^[:alnum:]_.~/:-])/([r]oot|[t]mp|[w]ork|[h]ome/[[:alnum:]_-]+|[U]sers/[[:alnum:]_-]+)/[[:alnum:]_.-]'
look "the folder of this checkout" -F -e "$PWD/"
if [ "${HOME:-/}" != / ]; then look "the home folder of this user" -F -e "$HOME/"; fi
look "the address of a package registry" -E \
  -e '[r]egistry\.(npmjs|yarnpkg)\.|[n]pmmirror\.|([s]tatic|[i]ndex)\.crates\.io|[f]iles\.pythonhosted\.|[p]ypi\.org/simple'
look "where a package was fetched from (npm config set omit-lockfile-registry-resolved true, then npm install)" \
  -E -e '"[r]esolved": *"https?:' -- '*.json'
look "a registry setting" -E -e '^ *([r]egistry|[i]ndex-url|[e]xtra-index-url|[f]ind-links|[r]eplace-with) *=' \
  -- '*.toml' '*.npmrc' '*.cfg' '*.conf' '*.ini'
exit "$bad"
