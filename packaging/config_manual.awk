# Makes the manual page creel.yaml(5) from the Markdown that `creeld --print-config-reference` prints.
# Variables: version.
function troff(text) {
  gsub(/\\/, "\\e", text)
  gsub(/-/, "\\-", text)
  # `code` is bold; [text](link) is text.
  while (match(text, /\[[^]]*\]\([^)]*\)/)) {
    link = substr(text, RSTART + 1, RLENGTH - 1)
    sub(/\].*/, "", link)
    text = substr(text, 1, RSTART - 1) link substr(text, RSTART + RLENGTH)
  }
  while (match(text, /`[^`]*`/)) {
    text = substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 1, RLENGTH - 2) "\\fR" \
      substr(text, RSTART + RLENGTH)
  }
  if (text ~ /^[.']/) text = "\\&" text
  return text
}
BEGIN {
  FS = " *\\| *"
  printf ".TH CREEL.YAML 5 \"\" \"Creel %s\" \"Creel\"\n", version
  print ".SH NAME\ncreel.yaml \\- configuration of the Creel supervisor"
  print ".SH DESCRIPTION"
}
/^# / { next }
/^This page is written/ { next }
/^## / {
  title = substr($0, 4)
  gsub(/`/, "", title)
  print ".SH " toupper(substr(title, 1, 1)) substr(title, 2)
  next
}
/^\| (key|---)/ { next }
/^\| / {
  print ".TP\n" troff($2) " (" troff($3) ($4 == "" ? "" : "; default " troff($4)) ")"
  print troff($5)
  next
}
/^$/ { print ".PP"; next }
{ print troff($0) }
END { print ".SH SEE ALSO\n.BR creeld (8),\n.BR creel (1)" }
