# Sets up a database with the scripts of the demo manifests: database.sh FOLDER PROGRAM
# FOLDER contains pg_hba.conf, init, job, backup, and secrets/ with the files of the secrets.
# shellcheck shell=bash
source scripts/lib/setup.sh

folder=$1 program=$2
bin=$(postgres_bin)
mkdir -p "$folder/server" "$folder/backups"
[ "$(id -u)" != 0 ] || chown -R "$(unprivileged id -un)" "$folder"
stop_server() { unprivileged "$bin/pg_ctl" --pgdata="$folder/server/data" --mode=immediate stop >/dev/null 2>&1 || true; }
trap stop_server EXIT
unprivileged "$bin/initdb" --pgdata="$folder/server/data" --username=postgres --data-checksums --auth-host=scram-sha-256 \
  --auth-local=trust >/dev/null
unprivileged "$bin/pg_ctl" --pgdata="$folder/server/data" --wait --log="$folder/server/log" start --options="-p $PORT \
  -k $folder/server -c listen_addresses=127.0.0.1 -c hba_file=$folder/pg_hba.conf" >/dev/null
export PATH=$bin:$PATH PGPORT=$PORT
PGHOST=$folder/server SECRETS=$folder/secrets unprivileged sh "$folder/init"
echo "faults in pg_hba.conf: $(psql -h "$folder/server" -U postgres -Atc 'select count(*) from pg_hba_file_rules where error is not null')"
REVWALLET_DATABASE_URL_FILE=$folder/secrets/database_url "$program" --log-format=json migrate >"$folder/migrated" 2>&1
# Twice: the job also runs for a version without changes.
sh -ec "$(cat "$folder/job")" && sh -ec "$(cat "$folder/job")"
echo "observer: $(psql "$(cat "$folder/secrets/observer_url")" -Atc "select count(*) from observer.of_transfer('1')")"
psql "$(cat "$folder/secrets/observer_url")" -Atc 'select * from ledger.transfer' 2>&1 | sed -n 's|^ERROR: *|observer: |p' || true
PGPASSWORD=$(cat "$folder/secrets/postgres_password") psql -h 127.0.0.1 -U postgres -d revwallet -Atc 'select 1' 2>&1 |
  sed -n 's/.*FATAL: */superuser: /p' || true
for day in 1 2 3 4 5 6 7 8; do touch "$folder/backups/revwallet-2026010${day}T000000Z.dump"; done
sh -ec "$(cat "$folder/backup")" >/dev/null
echo "backups: $(find "$folder/backups" -type f | wc -l), the oldest $(ls "$folder/backups" | head -1)"
newest=$(ls "$folder/backups" | tail -1)
pg_restore --file=- "$folder/backups/$newest" | grep -c 'COPY ledger.transfer_open ' | sed 's/^/books in the newest: /'
# A failed backup leaves no file that looks like a backup.
! sh -ec "$(sed 's/pg_dump /false /' "$folder/backup")" >/dev/null 2>&1 || echo "a failed backup exited with 0"
echo "left over: $(find "$folder/backups" -name '*.part' | wc -l)"
