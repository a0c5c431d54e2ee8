# Sourced by scripts that build programs from Go modules. Go is taken where it is installed. One that is too old fetches a
# newer one for itself; one from before that existed (Go 1.20) is made to.

# find_go: sets $go to the command for the module in the current directory.
find_go() {
  local needed toolchain module=$PWD
  needed=$(sed -n 's/^go //p' go.mod)
  if ! command -v go >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends golang-go ca-certificates >/dev/null \
      || give_up "Go could not be installed: install Go $needed or newer (https://go.dev/dl/), then try again"
  fi
  go=$(command -v go)
  # Asked from elsewhere: this go.mod is more than an old one can read.
  cd /
  case $(go env GOVERSION) in
  go1.1[0-9]* | go1.20*)
    # It knows nothing of toolchains, but a toolchain is a module, with a checksum in the public database as any other.
    toolchain=golang.org/toolchain@v0.0.1-go$needed.$(go env GOOS)-$(go env GOARCH)
    go mod download "$toolchain" || give_up "Go $needed could not be downloaded: see the lines above"
    go=$(go env GOMODCACHE)/$toolchain
    # Modules are unpacked without the right to execute.
    chmod +x "$go"/bin/* "$go"/pkg/tool/*/*
    go=$go/bin/go
    ;;
  esac
  cd "$module"
}
