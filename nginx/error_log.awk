# Converts each line of nginx's error log to a line of JSON, without query strings.
# 2026/11/21 12:00:00 [error] 7#7: *1 connect() failed ..., request: "GET /a?secret HTTP/1.1", upstream: "..."
{
  text = $0
  level = "WARN"
  ts = ""
  # These levels require the operator to act.
  if (text ~ /^[^\[]*\[(crit|alert|emerg)\]/) level = "ERROR"
  if (match(text, /^[0-9]+\/[0-9]+\/[0-9]+ [0-9:]+ \[[a-z]+\] [0-9#]+: /)) {
    ts = $1 "T" $2 "Z"
    gsub(/\//, "-", ts)
    text = substr(text, RSTART + RLENGTH)
  }
  gsub(/\?[^" ]*/, "", text)
  gsub(/\\/, "/", text)
  gsub(/"/, "\\\"", text)
  gsub(/[\001-\037]/, " ", text)
  printf "{"
  if (ts != "") printf "\"ts\":\"%s\",", ts
  printf "\"level\":\"%s\",\"message\":\"%s\",\"service\":\"edge\",\"env\":\"%s\",\"_target\":\"nginx\",\"event\":\"nginx.error\"}\n", level, text, environment
  fflush()
}
