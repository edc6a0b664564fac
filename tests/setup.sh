#!/usr/bin/env bash
# What the tests need on a machine: finds it, installs what is missing where that is allowed, and otherwise says exactly
# what to install. Every step is safe to repeat and quick when there is nothing to do.
#
#   eval "$(bash tests/setup.sh [web])"   sets up everything, or only what building the npm package and the page needs,
#                                         and prints the variables to export; messages go to stderr
#   . tests/setup.sh                      defines the functions only; this is how tests/run.sh uses it
#
# Packages of the system are installed by root with apt-get (Debian, Ubuntu) and never otherwise: sudo is not used.
# Works with bash 3.2, which is what macOS has.

: "${HOME:=$(cd ~ && pwd)}"
FOREDRAFT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target_dir=${CARGO_TARGET_DIR:-$FOREDRAFT_ROOT/target}
case $target_dir in /*) ;; *) target_dir=$FOREDRAFT_ROOT/$target_dir ;; esac
tools_dir=$target_dir/tools
WASM_TARGET=wasm32-unknown-unknown
NODE_MAJOR=20

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# limited SECONDS COMMAND...: with a time limit where the system has `timeout` (macOS has not).
limited() {
  if have timeout; then timeout "$@"; else shift && "$@"; fi
}

sha256_of() {
  if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# --- the system: what is there, what would provide it ---------------------------------------------------------------

package_manager() {
  local manager
  for manager in apt-get dnf pacman zypper brew; do
    if have "$manager"; then echo "$manager" && return; fi
  done
  echo none
}

may_install() { [ "$(id -u)" = 0 ] && [ "$(package_manager)" = apt-get ]; }

# Packages that provide a need, by package manager; empty where none does.
packages_of() {
  case $1:$2 in
    compiler:apt-get) echo gcc libc6-dev ;;
    compiler:dnf) echo gcc glibc-devel ;;
    compiler:pacman | compiler:zypper) echo gcc ;;
    python:apt-get | python:dnf) echo python3 python3-pip ;;
    python:pacman) echo python python-pip ;;
    python:zypper) echo python3 python3-pip ;;
    python:brew) echo python ;;
    vulkan:apt-get) echo mesa-vulkan-drivers libvulkan1 ;;
    vulkan:dnf) echo mesa-vulkan-drivers vulkan-loader ;;
    vulkan:pacman) echo vulkan-swrast vulkan-icd-loader ;;
    vulkan:zypper) echo Mesa-vulkan-device-select libvulkan_lvp libvulkan1 ;;
    chromium:apt-get) echo chromium fonts-dejavu-core ;;
    chromium:brew) echo --cask google-chrome ;;
    chromium:*) echo chromium ;;
    firefox:apt-get) apt-cache show firefox-esr >/dev/null 2>&1 && echo firefox-esr || echo firefox ;;
    firefox:zypper) echo MozillaFirefox ;;
    firefox:brew) echo --cask firefox ;;
    firefox:*) echo firefox ;;
    node:apt-get) echo nodejs npm ;;
    node:brew) echo node ;;
    node:*) echo nodejs npm ;;
  esac
}

describe() {
  case $1 in
    rust) echo "Rust with cargo, rustfmt and clippy" ;;
    compiler) echo "a C compiler and linker" ;;
    python) echo "Python 3 with pip" ;;
    vulkan) echo "a software Vulkan driver (Mesa's lavapipe) and the Vulkan loader" ;;
    chromium) echo "Chromium or Chrome" ;;
    firefox) echo "Firefox" ;;
    node) echo "Node.js $NODE_MAJOR or newer with npm" ;;
    *) echo "$1" ;;
  esac
}

# What to type to get a need on this system.
remedy() {
  local manager packages
  manager=$(package_manager)
  packages=$(packages_of "$1" "$manager")
  case $1:$manager in
    rust:*) echo "see https://rustup.rs, then: rustup component add rustfmt clippy" && return ;;
    compiler:brew) echo "xcode-select --install" && return ;;
    node:apt-get) echo "sudo apt-get install $packages, or https://nodejs.org where that is older than $NODE_MAJOR" && return ;;
  esac
  if [ -z "$packages" ] || [ "$manager" = none ]; then
    echo "install it by your system's package manager" && return
  fi
  case $manager in
    apt-get) echo "sudo apt-get install --no-install-recommends $packages" ;;
    dnf) echo "sudo dnf install $packages" ;;
    pacman) echo "sudo pacman -S $packages" ;;
    zypper) echo "sudo zypper install $packages" ;;
    brew) echo "brew install $packages" ;;
  esac
}

lavapipe_icd() {
  local folder file
  for folder in /usr/share /usr/local/share /etc "${XDG_DATA_HOME:-$HOME/.local/share}"; do
    for file in "$folder"/vulkan/icd.d/lvp_icd*.json; do
      if [ -f "$file" ]; then echo "$file" && return; fi
    done
  done
  case "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" in
    *lvp_icd*) echo "${VK_DRIVER_FILES:-$VK_ICD_FILENAMES}" && return ;;
  esac
  return 1
}

vulkan_loader() {
  local folder
  for folder in /usr/lib/*-linux-gnu* /usr/lib64 /usr/lib /usr/local/lib /lib; do
    if [ -e "$folder/libvulkan.so.1" ]; then return; fi
  done
  return 1
}

# first_program VARIABLE CANDIDATE...: what the variable names, or the first candidate that can be run.
first_program() {
  local candidate=${!1:-}
  if [ -n "$candidate" ]; then echo "$candidate" && return; fi
  shift
  for candidate in "$@"; do
    if have "$candidate"; then command -v "$candidate" && return; fi
  done
  return 1
}

find_chromium() {
  first_program FOREDRAFT_CHROMIUM chromium chromium-browser google-chrome google-chrome-stable \
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" /Applications/Chromium.app/Contents/MacOS/Chromium
}

find_firefox() {
  first_program FOREDRAFT_FIREFOX firefox-esr firefox /Applications/Firefox.app/Contents/MacOS/firefox
}

satisfied() {
  case $1 in
    rust) have cargo && have rustc && cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ;;
    compiler) have cc ;;
    python) have python3 && python3 -m pip --version >/dev/null 2>&1 ;;
    vulkan) [ "$(uname -s)" != Linux ] || { lavapipe_icd >/dev/null && vulkan_loader; } ;;
    chromium) find_chromium >/dev/null ;;
    firefox) find_firefox >/dev/null ;;
    node) have npm && have node && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge "$NODE_MAJOR" ] ;;
  esac
}

apt_lists_fresh=
apt_install() {
  if [ -z "$apt_lists_fresh" ]; then
    apt-get update -qq >&2 || say "apt-get update failed; trying with the package lists that are there"
    apt_lists_fresh=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# setup_system NEED...: installs what is missing in one go, or lists all of it with what to type, and fails.
found_needs=" "
setup_system() {
  local need missing="" packages="" asked=""
  for need in "$@"; do
    case $found_needs in *" $need "*) continue ;; esac
    asked="$asked $need"
    satisfied "$need" || missing="$missing $need"
  done
  if [ -n "$missing" ] && may_install; then
    for need in $missing; do
      # rustup's Rust is not a package, and an old Node is better reported than replaced.
      case $need in rust | node) continue ;; esac
      packages="$packages $(packages_of "$need" apt-get)"
    done
    if [ -n "$packages" ]; then
      say "installing$packages"
      # shellcheck disable=SC2086 # a list of words
      apt_install $packages || say "apt-get could not install them; see above"
    fi
  fi
  if [ -n "$missing" ]; then
    missing=""
    for need in $asked; do
      satisfied "$need" || missing="$missing $need"
    done
  fi
  if [ -z "$missing" ]; then
    if [ -n "$asked" ]; then say "found$asked"; fi
    found_needs="$found_needs$* "
    return
  fi
  say "the tests need what is not here:"
  for need in $missing; do
    say "  - $(describe "$need"): $(remedy "$need")"
  done
  if ! may_install; then say "(installed automatically only by root on a system with apt-get)"; fi
  return 1
}

# --- the wasm compiler -------------------------------------------------------------------------------------------------

# The real program of a Debian package, past wrappers that lie in share/.
debian_program() {
  dpkg -L "$1" 2>/dev/null | grep -E "/bin/$2\$" | grep -v /share/ | head -n 1 || true
}

has_wasm_std() {
  local libs
  libs=$(rustc --print target-libdir --target "$WASM_TARGET" 2>/dev/null) || return 1
  compgen -G "$libs/libstd-*.rlib" >/dev/null
}

setup_wasm_debian() {
  local rustc cargo llvm
  if [ -z "$(debian_program rustc-web rustc)" ] || [ -z "$(debian_program cargo-web cargo)" ] ||
    ! compgen -G "/usr/src/rustc-*/library/std" >/dev/null || ! have rust-lld; then
    may_install || return 1
    say "installing Debian's Rust beside rustup's for its wasm target (rustc-web and its library source)"
    apt_install rustc-web cargo-web rust-web-src rust-web-llvm libstd-rust-web-dev || return 1
    # Its linker is a link into the lld of the LLVM that it was built with.
    llvm=$("$(debian_program rustc-web rustc)" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    apt_install "lld-$llvm" || return 1
  fi
  rustc=$(debian_program rustc-web rustc)
  cargo=$(debian_program cargo-web cargo)
  [ -x "$rustc" ] && [ -x "$cargo" ] || return 1
  # A target directory of its own, so that two compilers do not wait for each other's lock.
  export FOREDRAFT_WASM_RUSTC=$rustc FOREDRAFT_WASM_CARGO=$cargo FOREDRAFT_WASM_BUILD_STD=1
  export FOREDRAFT_WASM_TARGET_DIR=$target_dir/wasm
  say "wasm: $("$rustc" --version), standard library built from source"
}

# Chooses the compiler of the wasm and tells web/scripts/build.mjs by FOREDRAFT_WASM_*. FOREDRAFT_WASM_TOOLCHAIN=rustup
# or =debian takes the choice away.
setup_wasm() {
  local wanted=${FOREDRAFT_WASM_TOOLCHAIN:-auto}
  if [ "$wanted" != debian ]; then
    if ! has_wasm_std && have rustup; then
      say "fetching Rust's $WASM_TARGET target"
      limited 90 rustup target add "$WASM_TARGET" >&2 || say "rustup could not fetch it"
    fi
    if has_wasm_std; then
      FOREDRAFT_WASM_RUSTC=$(command -v rustc)
      FOREDRAFT_WASM_CARGO=$(command -v cargo)
      export FOREDRAFT_WASM_RUSTC FOREDRAFT_WASM_CARGO FOREDRAFT_WASM_BUILD_STD=0 FOREDRAFT_WASM_TARGET_DIR=$target_dir
      say "wasm: $(rustc --version) with its own $WASM_TARGET"
      return
    fi
  fi
  if [ "$wanted" != rustup ] && have dpkg && setup_wasm_debian; then return; fi
  say "the tests need Rust's wasm target: rustup target add $WASM_TARGET"
  say "  or, where rustup cannot fetch it, on Debian: sudo apt-get install --no-install-recommends \\"
  say "    rustc-web cargo-web rust-web-src rust-web-llvm libstd-rust-web-dev lld-22   (lld of the LLVM of rustc-web)"
  return 1
}

# The CLI must be of exactly the version that the crate is linked with.
setup_wasm_bindgen() {
  local version
  version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' "$FOREDRAFT_ROOT/Cargo.lock")
  if [ -z "$version" ]; then say "Cargo.lock names no wasm-bindgen" && return 1; fi
  export PATH="$tools_dir/bin:$PATH"
  if [ "$(wasm-bindgen --version 2>/dev/null)" != "wasm-bindgen $version" ]; then
    say "building wasm-bindgen-cli $version (a few minutes, once)"
    # Without --locked: its lock file pins versions that some registries no longer serve. Little optimised: it runs
    # for seconds and would compile for minutes.
    CARGO_TARGET_DIR=$tools_dir/build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
      cargo install wasm-bindgen-cli --version "=$version" --root "$tools_dir" --force --quiet >&2 || return 1
    rm -rf "$tools_dir/build"
  fi
  FOREDRAFT_WASM_BINDGEN=$(command -v wasm-bindgen)
  export FOREDRAFT_WASM_BINDGEN
  say "wasm-bindgen $version"
}

# --- packages and models -------------------------------------------------------------------------------------------------

setup_npm() {
  local lock=$FOREDRAFT_ROOT/web/package-lock.json stamp=$FOREDRAFT_ROOT/web/node_modules/.foredraft-lock
  if [ ! -f "$lock" ]; then say "web/package-lock.json is missing" && return 1; fi
  if [ "$(cat "$stamp" 2>/dev/null)" != "$(sha256_of "$lock")" ]; then
    say "installing the npm packages of web/"
    # The browsers are the system's.
    PUPPETEER_SKIP_DOWNLOAD=1 npm --prefix "$FOREDRAFT_ROOT/web" ci --no-audit --no-fund --loglevel=error >&2 || return 1
    sha256_of "$lock" >"$stamp"
  fi
  say "npm packages of web/ are those of its lock file"
}

models_dir() {
  echo "${FOREDRAFT_TEST_MODELS:-${FOREDRAFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/foredraft}/test-models}"
}

# model NAME FOLDER: the catalog model of that name as FOLDER/NAME.gguf. The product itself fetches and checks it.
model() {
  local file=$2/$1.gguf cached
  if [ -f "$file" ]; then return; fi
  say "fetching $1"
  cached=$(cd "$FOREDRAFT_ROOT" && cargo run --locked --release --quiet -- fetch "$1") || return 1
  ln -sf "$cached" "$file"
}

# Two real models, and a draft model that agrees with the first only at times: itself with three layers dropped.
setup_models() {
  local dir target draft script=$FOREDRAFT_ROOT/tests/make_draft.py
  dir=$(models_dir)
  mkdir -p "$dir"
  target=$dir/smollm2-135m-instruct.gguf
  draft=$dir/smollm2-draft.gguf
  model smollm2-135m-instruct "$dir" || return 1
  model gemma-3-270m "$dir" || return 1
  if [ ! -f "$draft" ] || [ "$script" -nt "$draft" ]; then
    say "making smollm2-draft.gguf"
    python3 "$script" "$target" "$draft.part" --drop 12,13,14 >&2 || return 1
    mv "$draft.part" "$draft"
  fi
  say "models are in $dir"
}

# --- all of it -----------------------------------------------------------------------------------------------------------

# What Rust tests need; the models come later, when the product that fetches them is built.
setup_for_rust() {
  setup_system rust compiler python vulkan || return 1
  FOREDRAFT_TEST_MODELS=$(models_dir)
  export FOREDRAFT_TEST_MODELS
  # lavapipe wants a folder; any will do.
  if [ -z "${XDG_RUNTIME_DIR:-}" ] && [ "$(uname -s)" = Linux ]; then
    export XDG_RUNTIME_DIR=$target_dir/tools/runtime
    mkdir -p "$XDG_RUNTIME_DIR" && chmod 700 "$XDG_RUNTIME_DIR"
  fi
}

# What the npm package and the page are built with.
setup_for_web() {
  setup_system rust compiler node && setup_wasm && setup_wasm_bindgen && setup_npm
}

# What all tests need.
setup_for_all() {
  # All at once, so that whoever has to install something learns of it in one go.
  setup_system rust compiler python vulkan node chromium firefox && setup_for_rust || return 1
  FOREDRAFT_CHROMIUM=$(find_chromium)
  FOREDRAFT_FIREFOX=$(find_firefox)
  export FOREDRAFT_CHROMIUM FOREDRAFT_FIREFOX
  setup_for_web
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  case ${1:-all} in
    web) setup_for_web ;;
    all)
      setup_for_all
      setup_models
      ;;
    *) say "unknown part '$1', expected nothing or 'web'" && exit 2 ;;
  esac
  export -p | grep -E '^declare -x (FOREDRAFT_|XDG_RUNTIME_DIR=|PATH=)' | sed 's/^declare -x/export/'
fi
