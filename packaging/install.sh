#!/bin/sh
# Installs Holm on a machine with systemd. May be run again: it replaces the program and the units, and keeps configuration
# and data. `install.sh --help` says what it takes.
set -eu

prefix=/usr/local
destdir=${DESTDIR:-}
binary=
parts="hub edge"
as_root=no
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

usage() {
    cat <<'END'
Usage: install.sh [--hub | --edge] [--edge-as-root] [--binary FILE] [--prefix DIR] [--destdir DIR]

  --hub, --edge      only the unit of the one or the other (both if neither is given)
  --edge-as-root     the edge runs as root and not as its own user
  --binary FILE      the program to install; target/release/holm beside this directory if not given
  --prefix DIR       where programs go: DIR/bin/holm, DIR/lib/holm/modules; /usr/local if not given
  --destdir DIR      put everything below DIR and leave the running system alone, to make a package or to try
                     (also the variable DESTDIR)

Starts nothing. To take it away: uninstall.sh.
END
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --hub) parts=hub ;;
        --edge) parts=edge ;;
        --edge-as-root) as_root=yes ;;
        --binary | --prefix | --destdir)
            [ $# -ge 2 ] || fail "$1 wants a value"
            case $1 in
                --binary) binary=$2 ;;
                --prefix) prefix=$2 ;;
                --destdir) destdir=$2 ;;
            esac
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "\`$1\` is unknown" ;;
    esac
    shift
done

case $prefix in
    /*) prefix=${prefix%/} ;;
    *) fail "--prefix must begin with \`/\`" ;;
esac
[ -n "$binary" ] || binary=$here/../target/release/holm
[ -f "$binary" ] || fail "there is no program \`$binary\`; make it with \`cargo build --release --package holm\`, or give --binary"
if [ -z "$destdir" ] && [ "$(id -u)" -ne 0 ]; then
    fail "this changes the system and needs root; or give --destdir to try it elsewhere"
fi

# What a distribution's package owns goes beside its units, what an administrator installs beside theirs.
case $prefix in
    "" | /usr) units=$prefix/lib/systemd/system sysusers=/usr/lib/sysusers.d tmpfiles=/usr/lib/tmpfiles.d ;;
    *) units=/etc/systemd/system sysusers=/etc/sysusers.d tmpfiles=/etc/tmpfiles.d ;;
esac

put() { # MODE SOURCE TARGET
    mkdir -p "$destdir$(dirname -- "$3")"
    # Beside and renamed: a program that runs can't be written to, and must not be missing for a moment.
    install -m "$1" "$2" "$destdir$3.new"
    mv -f "$destdir$3.new" "$destdir$3"
    echo "  $3"
}

put_unit() { # SOURCE TARGET
    made=$(mktemp)
    sed "s|/usr/bin/holm |$prefix/bin/holm |; s|/usr/share/doc|$prefix/share/doc|" "$1" > "$made"
    put 644 "$made" "$2"
    rm -f "$made"
}

echo "installing below ${destdir:-/}:"
put 755 "$binary" "$prefix/bin/holm"
put 644 "$here/README.md" "$prefix/share/doc/holm/README.md"
mkdir -p "$destdir$prefix/lib/holm/modules" "$destdir/etc/holm"
for part in $parts; do
    put_unit "$here/systemd/holm-$part.service" "$units/holm-$part.service"
done
put 644 "$here/sysusers.d/holm.conf" "$sysusers/holm.conf"
put 644 "$here/tmpfiles.d/holm.conf" "$tmpfiles/holm.conf"
drop_in=/etc/systemd/system/holm-edge.service.d/10-root.conf
case $parts in
    *edge*)
        put 600 "$here/../examples/edge-config.toml" /etc/holm/config.toml.example
        if [ "$as_root" = yes ]; then
            put 644 "$here/systemd/10-root.conf" "$drop_in"
        elif [ -e "$destdir$drop_in" ]; then
            rm -f "$destdir$drop_in"
            echo "  $drop_in removed: the edge has its own user again"
        fi
        ;;
esac

if [ -n "$destdir" ]; then
    echo "the running system was left alone: no users, no reload"
    exit 0
fi

make_user() { # NAME
    if ! id -u "$1" > /dev/null 2>&1; then
        useradd --system --user-group --home-dir "/var/lib/holm/${1#holm-}" --no-create-home --shell /usr/sbin/nologin "$1"
        echo "  user $1"
    fi
}
if command -v systemd-sysusers > /dev/null; then
    systemd-sysusers "$sysusers/holm.conf"
else
    make_user holm-hub
    make_user holm-edge
fi
case $parts in
    *edge*)
        if [ "$as_root" = no ] && getent group docker > /dev/null; then
            usermod -aG docker holm-edge
            echo "  user holm-edge is in the group docker, which may do on this machine what root may"
        fi
        ;;
esac
if command -v systemd-tmpfiles > /dev/null; then
    systemd-tmpfiles --create "$tmpfiles/holm.conf"
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
else
    echo "systemd does not run here: the units are in place, and nothing can be started by them"
fi

echo "done. Next:"
for part in $parts; do
    case $part in
        hub) echo "  hub:  put HUB_HOSTNAME=… into /etc/holm/hub.env; systemctl enable --now holm-hub" ;;
        edge) echo "  edge: write /etc/holm/config.toml after config.toml.example, owner holm-edge, mode 0600; systemctl enable --now holm-edge" ;;
    esac
done
