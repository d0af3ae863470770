#!/usr/bin/env bash
# Puts what the tests need from npm into a cache folder outside the tree, and prints that folder:
# mcp/, node/, openclaw/ and adapter/.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../npm-cache.sh" e2e mcp="$here/npm/mcp" node="$here/npm/node" \
  openclaw="$here/npm/openclaw" adapter="$here/../../supervisor/adapters/openclaw"
