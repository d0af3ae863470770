#!/usr/bin/env bash
# Formatting, scripts, protos, a build with clang, and clang-tidy on what differs from the upstream
# branch; with ALL=1 on everything (long).
. "$(dirname "$0")/lib.sh"

cd "$SOURCE_DIR"
"$SETUP_DIR/packages.sh" build test lint

mapfile -t sources < <(git ls-files --cached --others --exclude-standard -- '*.cc' '*.h' '*.c')
say "clang-format"
clang-format-14 --dry-run -Werror "${sources[@]}"
say "scripts and protos"
"$SETUP_DIR/script-lint.sh"
"$SETUP_DIR/buf-lint.sh"
say "clang, with -Wthread-safety"
"$SETUP_DIR/build.sh" clang

if [ -n "${ALL:-}" ]; then
  mapfile -t tidy < <(git ls-files -- '*.cc')
else
  base=$(git merge-base HEAD '@{upstream}' 2>/dev/null || git rev-parse HEAD)
  mapfile -t tidy < <(
    git diff --name-only --diff-filter=d "$base" -- '*.cc'
    git ls-files --others --exclude-standard -- '*.cc'
  )
fi
if [ ${#tidy[@]} -gt 0 ]; then
  say "clang-tidy on ${#tidy[@]} files"
  printf '%s\0' "${tidy[@]}" |
    xargs -0 -n 1 -P "$(nproc)" clang-tidy-14 --quiet --warnings-as-errors='*' -p build/clang
fi
