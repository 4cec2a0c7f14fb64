# What scripts/backup, scripts/archive and scripts/restore share. Sourced behind setup.sh, not run.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # `given` is theirs to read; `here`, `bin` and `url` they set.

# Prints the comment at the top of the script.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

# Sets `given` to the value of an option: take "$@"
take() {
  [ $# -ge 2 ] && [ -n "$2" ] || wrong "$1 needs a value"
  given=$2
}

wrong() {
  say "$(basename "$0"): $*; see $(basename "$0") --help"
  exit 2
}

# A path as the caller meant it: the scripts work in the repository's folder.
meant() {
  case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$here/$1" ;;
  esac
}

# Sets `url` to the server: that of the data directory if one is given, else DATABASE_URL, else the usual data directory.
find_server() {
  local folder=$1 file
  if [ -z "$folder" ] && [ -z "${DATABASE_URL:-}" ] && [ -f .env ]; then
    set -a
    source .env
    set +a
  fi
  if [ -z "${DATABASE_URL:-}" ] && [ -n "${REVWALLET_DATABASE_URL_FILE:-}" ]; then
    DATABASE_URL=$(cat "$REVWALLET_DATABASE_URL_FILE")
  fi
  if [ -z "$folder" ] && [ -n "${DATABASE_URL:-}" ]; then
    url=$DATABASE_URL
    # Whoever lists the processes should not see it.
    if [[ $url =~ ^([a-z]+://[^:/@]+):([^@]*)@(.*)$ ]]; then
      PGPASSWORD=$(printf '%b' "${BASH_REMATCH[2]//%/\\x}")
      export PGPASSWORD
      url="${BASH_REMATCH[1]}@${BASH_REMATCH[3]}"
    fi
    return
  fi
  folder=${folder:-${REVWALLET_DATA_DIR:-.revwallet}}
  file=$folder/postgres/postmaster.pid
  [ -r "$file" ] || fail "no database runs on $folder: start revwallet there, or give --data-dir or DATABASE_URL"
  url="postgres://revwallet@localhost/revwallet?host=$(sed -n 5p "$file")"
}

# Asks the server; the columns come separated by |.
ask() {
  PGCONNECT_TIMEOUT=10 "$bin/psql" -XAtqw -v ON_ERROR_STOP=1 -d "$url" -c "$1"
}

# One value of the notes beside a backup.
note_of() {
  sed -n "s/^$2=//p" "$1/backup.conf"
}

# The backups in a folder, oldest first: their names are their moments.
backups_in() {
  local file
  for file in "$1"/[0-9]*Z/backup.conf; do
    [ -f "$file" ] && dirname "$file"
  done
  return 0
}

# The first file of the log that the backup needs.
first_segment_of() {
  sed -n 's/^START WAL LOCATION: .*(file \([0-9A-F]*\))$/\1/p' "$1/cluster/backup_label"
}

# Prints the first file of the log that is missing between those that a backup and its archive have: nothing behind it
# could be restored. Files are counted on through all timelines, 256 for each number in the middle of a name.
first_hole() {
  local backup=$1 archive=$2 name number last=""
  while read -r name; do
    number=$((16#${name:0:8} * 256 + 16#${name:8:8}))
    if [ -n "$last" ] && [ "$number" -gt $((last + 1)) ]; then
      printf '%08X%08X\n' $(((last + 1) / 256)) $(((last + 1) % 256))
      return
    fi
    last=$number
  done < <(
    first=$(first_segment_of "$backup")
    for name in "$backup"/cluster/pg_wal/* "$archive"/*.gz; do
      name=${name##*/} name=${name%.gz}
      [[ "$name" =~ ^[0-9A-F]{24}$ ]] && ! [[ "${name:8}" < "${first:8}" ]] && echo "${name:8}"
    done | sort -u
  )
}
