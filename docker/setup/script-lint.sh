#!/usr/bin/env bash
# Checks every script of the tree with shellcheck.
. "$(dirname "$0")/lib.sh"

command -v shellcheck >/dev/null ||
  die "shellcheck is missing: docker/setup/packages.sh test installs it"
cd "$SOURCE_DIR"
shellcheck --external-sources --source-path=SCRIPTDIR \
  .ci/run docker/setup/*.sh docker/setup/runsc-wrapper docker/gateway/start tests/e2e/*.sh \
  tests/web/*.sh tests/packaging/*.sh tests/*.sh packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm
