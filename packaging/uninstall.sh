#!/bin/sh
# Takes away what install.sh put in place. May be run again. `uninstall.sh --help` says what it takes.
set -eu

prefix=/usr/local
destdir=${DESTDIR:-}
stop_modules=no
purge=no
data=/var/lib/holm/edge

usage() {
    cat <<'END'
Usage: uninstall.sh [--stop-modules] [--purge] [--edge-data DIR] [--prefix DIR] [--destdir DIR]

  --stop-modules     also end the modules: processes by their supervisors, containers by the engine.
                     Without it they go on; a later edge with the same data finds them again
  --purge            also remove configuration, keys, messages and users. Nothing brings them back.
                     Wants --stop-modules, since modules can't go on without their files
  --edge-data DIR    the edge's `[holm] data`; /var/lib/holm/edge if not given
  --prefix DIR       as it was given to install.sh; /usr/local if not given
  --destdir DIR      as it was given to install.sh; the running system is left alone
END
}

fail() {
    echo "uninstall.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --stop-modules) stop_modules=yes ;;
        --purge) purge=yes ;;
        --prefix | --destdir | --edge-data)
            [ $# -ge 2 ] || fail "$1 wants a value"
            case $1 in
                --prefix) prefix=${2%/} ;;
                --destdir) destdir=$2 ;;
                --edge-data) data=${2%/} ;;
            esac
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "\`$1\` is unknown" ;;
    esac
    shift
done
if [ "$purge" = yes ] && [ "$stop_modules" = no ]; then
    fail "--purge wants --stop-modules, since modules can't go on without their files"
fi
case $data in
    *..* | *//*) fail "--edge-data must be a plain path" ;;
    /*/*/*) ;;
    *) fail "--edge-data \`$data\` is no directory of an edge; give it as it stands in the configuration" ;;
esac
if [ -z "$destdir" ] && [ "$(id -u)" -ne 0 ]; then
    fail "this changes the system and needs root"
fi

case $prefix in
    "" | /usr) units=$prefix/lib/systemd/system sysusers=/usr/lib/sysusers.d tmpfiles=/usr/lib/tmpfiles.d ;;
    *) units=/etc/systemd/system sysusers=/etc/sysusers.d tmpfiles=/etc/tmpfiles.d ;;
esac

# The supervisors of this edge's process modules: `holm-supervise supervise run DIR`, with DIR below its data.
supervisors() {
    for entry in /proc/[0-9]*; do
        # A process may be gone by now.
        line=$({ tr '\0' ' ' < "$entry/cmdline"; } 2> /dev/null) || continue
        case $line in
            "holm-supervise "*" run $data/"*) echo "${entry#/proc/}" ;;
        esac
    done
}

# The containers of an edge of Holm: its label, which the original runtime does not set.
containers() {
    if command -v docker > /dev/null; then
        docker ps --all --quiet --filter label=holm.spec-digest 2> /dev/null || true
    fi
}

if [ -z "$destdir" ]; then
    if [ -d /run/systemd/system ]; then
        for unit in holm-edge holm-hub; do
            if systemctl cat "$unit.service" > /dev/null 2>&1; then
                systemctl disable --now "$unit.service"
            fi
        done
    fi
    if [ "$stop_modules" = yes ]; then
        for pid in $(supervisors); do
            echo "  ending the module of supervisor $pid"
            kill -TERM "$pid" 2> /dev/null || true
        done
        waited=0
        while [ -n "$(supervisors)" ] && [ "$waited" -lt 60 ]; do
            sleep 1
            waited=$((waited + 1))
        done
        left=$(supervisors | tr '\n' ' ')
        [ -z "$left" ] || fail "these supervisors still run: $left"
        for container in $(containers); do
            echo "  removing container $container"
            docker stop "$container" > /dev/null
            docker rm "$container" > /dev/null
        done
    fi
fi

take() {
    if [ -e "$destdir$1" ]; then
        rm -f "$destdir$1"
        echo "  removed $1"
    fi
}
take "$units/holm-hub.service"
take "$units/holm-edge.service"
take /etc/systemd/system/holm-edge.service.d/10-root.conf
take "$sysusers/holm.conf"
take "$tmpfiles/holm.conf"
take /etc/holm/config.toml.example
take "$prefix/share/doc/holm/README.md"
take "$prefix/bin/holm"
for directory in /etc/systemd/system/holm-edge.service.d "$prefix/share/doc/holm" "$prefix/lib/holm/modules" "$prefix/lib/holm"; do
    # Only where nothing else is in it.
    rmdir "$destdir$directory" 2> /dev/null || true
done

if [ "$purge" = yes ]; then
    for path in /etc/holm /var/lib/holm/hub "$data"; do
        rm -rf "${destdir:-}$path"
        echo "  removed $path"
    done
    rmdir "$destdir/var/lib/holm" 2> /dev/null || true
    if [ -z "$destdir" ]; then
        for user in holm-hub holm-edge; do
            if id -u "$user" > /dev/null 2>&1; then
                userdel "$user"
                echo "  removed user $user"
            fi
        done
    fi
fi
if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi

if [ "$purge" = no ]; then
    echo "left in place:"
    for path in /etc/holm /var/lib/holm/hub "$data" "$prefix/lib/holm/modules"; do
        if [ -e "$destdir$path" ]; then
            echo "  $path"
        fi
    done
    echo "  the users holm-hub and holm-edge, and container images"
fi
if [ -z "$destdir" ] && [ "$stop_modules" = no ]; then
    running=$(supervisors | wc -l)
    echo "modules were not touched: $running processes, $(containers | wc -l) containers; --stop-modules ends them"
fi
