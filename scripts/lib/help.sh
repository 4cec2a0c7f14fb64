# Answers `--help` and `-h`, the first argument of a script, with the comment at its top, before the script does anything.
# Sourced before everything else, by setup.sh or by a script that needs nothing more; not run.
# shellcheck shell=bash

# Absolute, because setup.sh changes the folder.
script=${BASH_SOURCE[-1]}
[[ $script == /* ]] || script=$PWD/$script

# Prints the comment at the top of the script.
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$script"
}

case ${1:-} in
  --help | -h) usage && exit ;;
esac
