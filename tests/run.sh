#!/usr/bin/env bash
# The one test command.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --release
