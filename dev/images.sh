# The names of the two images and how they are built. Sourced.

_version=$(sed -n 's/^VERSION = "\(.*\)"/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../orchestrator/version.py")
RUNTIME_IMAGE=${PERSTACK_RUNTIME_IMAGE:-perstack-orch-runtime:$_version}
ORCHESTRATOR_IMAGE=${PERSTACK_ORCHESTRATOR_IMAGE:-perstack-orch:$_version}

if [ -z "${BASE:-}" ]; then
  BASE=python:3.13-slim-bookworm
  # What `make engine` makes where no registry can be reached.
  if docker image inspect local/python:3.11 >/dev/null 2>&1; then BASE=local/python:3.11; fi
fi

# build_image SCRIPT IMAGE [OPTION]... CONTEXT: stdin goes to the builder, whose output is shown only if it fails.
build_image() {
  local script=$1 image=$2 log started=$SECONDS
  shift 2
  # Without the buildx plugin a newer command line refuses unless it is told to use the builder in the engine.
  docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
  log=$(mktemp)
  trap "rm -f '$log'" EXIT
  if ! docker build --build-arg "BASE=$BASE" --tag "$image" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "$script: $image could not be built from $BASE: the lines above say why" >&2
    return 1
  fi
  echo "$script: $image built from $BASE in $((SECONDS - started)) s"
}
