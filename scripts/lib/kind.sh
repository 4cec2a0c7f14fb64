# What the scripts for Kubernetes share: their settings, and speaking to the right cluster. Sourced, not run.
# shellcheck shell=bash

# shellcheck source=scripts/lib/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Reads the settings from the command line, or else from the environment.
# shellcheck disable=SC2034 # read by who calls it
kind_settings() {
  port=${REVWALLET_KIND_PORT:-80}
  namespace=${REVWALLET_KIND_NAMESPACE:-revwallet}
  cluster=${REVWALLET_KIND_CLUSTER:-revwallet}
  image=${REVWALLET_KIND_IMAGE:-}
  overlay=${REVWALLET_KIND_OVERLAY:-demo}
  while [ $# -gt 0 ]; do
    case $1 in
      --port | --namespace | --cluster | --image | --overlay)
        [ $# -gt 1 ] || fail "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
      *) fail "what is $1? $(sed -n 's/^# Usage: /usage: /p' "$0")" ;;
    esac
  done
  [[ $port =~ ^[0-9]+$ ]] || fail "--port is a number, not $port"
  [[ $namespace$cluster =~ ^[a-z0-9-]+$ ]] || fail "names are of small letters, digits and hyphens"
  [ -d "kind/overlays/$overlay" ] || fail "there is no kind/overlays/$overlay; there are: $(ls kind/overlays)"
}

# Runs kubectl in the namespace and the cluster of the settings, whatever the current context is.
on() {
  kubectl --context "kind-$cluster" --namespace "$namespace" "$@"
}
