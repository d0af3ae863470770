# shellcheck shell=bash
# The tour's table; to be sourced. Every text in it may come from a sandbox: what is not printable
# ASCII is shown as `?`, and long text is cut.

rows=0
broken=0
wide=no
green='' red='' dim='' plain=''
if [ -t 1 ]; then
  green=$'\e[32m' red=$'\e[1;31m' dim=$'\e[2m' plain=$'\e[0m'
  if [ "$(tput cols 2>/dev/null || echo 80)" -ge 150 ]; then
    wide=yes
  fi
fi

clean() {  # TEXT WIDTH
  local text
  text=$(printf '%s' "$1" | head -c 4096 | LC_ALL=C tr '\n\t' '  ' | LC_ALL=C tr -c ' -~' '?')
  if [ ${#text} -gt "$2" ]; then
    text=${text:0:$(($2 - 3))}...
  fi
  printf '%s' "$text"
}

table_head() { printf '\n%s\n' "$1"; }

table_columns() {
  printf '\n'
  if [ "$wide" = yes ]; then
    printf '%-7s %-44s %-52s %s\n' '' 'what was tried' 'what came back' 'what stopped it'
  fi
}

row() {  # WHAT CAME-BACK STOPPED-BY [held]
  local verdict="${green}held   ${plain}"
  rows=$((rows + 1))
  if [ "${4:-}" != held ]; then
    verdict="${red}BROKEN ${plain}"
    broken=$((broken + 1))
  fi
  if [ "$wide" = yes ]; then
    printf '%s %-44s %-52s %s\n' "$verdict" "$(clean "$1" 44)" "$(clean "$2" 52)" "$3"
  else
    printf '%s %s\n        %scame back:%s  %s\n        %sstopped by:%s %s\n' "$verdict" \
      "$(clean "$1" 70)" "$dim" "$plain" "$(clean "$2" 90)" "$dim" "$plain" "$3"
  fi
}

# Says how it ended; false if any wall was broken.
table_end() {
  printf '\n'
  if [ "$broken" = 0 ]; then
    printf '%sAll %d walls held.%s\n' "$green" "$rows" "$plain"
  else
    printf '%s%d of %d walls are BROKEN.%s\n' "$red" "$broken" "$rows" "$plain"
    return 1
  fi
}
