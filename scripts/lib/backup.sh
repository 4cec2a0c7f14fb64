# Functions shared by scripts/backup, scripts/archive and scripts/restore. Sourced after setup.sh, not run.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the scripts set `bin`, and read and set `url`

# shellcheck source=scripts/lib/options.sh
source scripts/lib/options.sh

# Sets `url` to the server of the given data directory, else to DATABASE_URL, else to the server of the default directory.
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
    # Keeps the password out of the process list.
    if [[ $url =~ ^([a-z]+://[^:/@]+):([^@]*)@(.*)$ ]]; then
      PGPASSWORD=$(printf '%b' "${BASH_REMATCH[2]//%/\\x}")
      export PGPASSWORD
      url="${BASH_REMATCH[1]}@${BASH_REMATCH[3]}"
    fi
    return
  fi
  folder=${folder:-${REVWALLET_DATA_DIR:-.revwallet}}
  file=$folder/postgres/postmaster.pid
  [ -r "$file" ] || fail "no database is running in $folder; start revwallet there, or set --data-dir or DATABASE_URL"
  url="postgres://revwallet@localhost/revwallet?host=$(sed -n 5p "$file")"
}

# Runs a query and prints its rows; columns are separated by |.
query() {
  PGCONNECT_TIMEOUT=10 "$bin/psql" -XAtqw -v ON_ERROR_STOP=1 -d "$url" -c "$1"
}

# Prints a field of the metadata of a backup.
backup_field() {
  sed -n "s/^$2=//p" "$1/backup.conf"
}

# Lists the backups in a folder, oldest first: they are named after their times.
list_backups() {
  local file
  for file in "$1"/[0-9]*Z/backup.conf; do
    [ -f "$file" ] && dirname "$file"
  done
  return 0
}

# Prints the first WAL segment that a backup requires.
first_segment() {
  sed -n 's/^START WAL LOCATION: .*(file \([0-9A-F]*\))$/\1/p' "$1/cluster/backup_label"
}

# Prints the first missing WAL segment of a backup and its archive: nothing after it could be restored. Segments are
# numbered across timelines, with 256 for each log number (the middle part of the name).
first_missing_segment() {
  local backup=$1 archive=$2 name number last=""
  while read -r name; do
    number=$((16#${name:0:8} * 256 + 16#${name:8:8}))
    if [ -n "$last" ] && [ "$number" -gt $((last + 1)) ]; then
      printf '%08X%08X\n' $(((last + 1) / 256)) $(((last + 1) % 256))
      return
    fi
    last=$number
  done < <(
    first=$(first_segment "$backup")
    for name in "$backup"/cluster/pg_wal/* "$archive"/*.gz; do
      name=${name##*/} name=${name%.gz}
      [[ "$name" =~ ^[0-9A-F]{24}$ ]] && ! [[ "${name:8}" < "${first:8}" ]] && echo "${name:8}"
    done | sort -u
  )
}
