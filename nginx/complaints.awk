# Makes a line of JSON of each line of nginx's error log, without the query strings that stand in it.
# 2026/11/21 12:00:00 [error] 7#7: *1 connect() failed ..., request: "GET /a?secret HTTP/1.1", upstream: "..."
{
  text = $0
  level = "WARN"
  ts = ""
  # The operator must act now.
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
