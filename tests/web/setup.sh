#!/usr/bin/env bash
# Puts Node.js, the browser's driver and the accessibility checks from npm into a cache folder outside
# the tree, and prints that folder: node/ and tests/.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../npm-cache.sh" web tests="$here/npm" node="$here/../e2e/npm/node"
