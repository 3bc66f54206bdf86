#!/bin/sh
# Runs a program of Windows in the wine prefix beside this script, without a screen and without wine's own messages.
#   --prepare SOURCE     creates the prefix, with a library made of SOURCE
#   --processes PROGRAM  prints the processes that were started from PROGRAM, or from a file below it
#   --end PROGRAMS       ends all processes in the prefix, and prints those of PROGRAMS that were still running
unset DISPLAY
export WINEPREFIX="$(dirname "$0")/wineprefix" WINEARCH=win64 WINEDLLOVERRIDES=mscoree,mshtml= WINEDEBUG=-all
# Tests read it.
export UNDER_WINE=1
# Debian's 64-bit loader. Its wrapper would need the 32-bit one, too.
wine=/usr/lib/wine/wine64
server=/usr/lib/wine/wineserver

processes() {
    # Windows gives its own form to paths.
    program=$(echo "$1" | tr / '\\')
    for environ in $(grep -lzxF "WINEPREFIX=$WINEPREFIX" /proc/[0-9]*/environ 2> /dev/null); do
        process=${environ%/environ}
        tr '\0/' '\n\\' < "$process/cmdline" | grep -qF "$program" && echo "${process#/proc/}"
    done 2> /dev/null
}

case $1 in
--prepare)
    set -e
    system=$WINEPREFIX/drive_c/windows/system32
    if [ ! -e "$system/kernel32.dll" ]; then
        mkdir -p "$WINEPREFIX"
        "$wine" wineboot -i
        "$server" -w
    fi
    # A crash ends the process with its own status; wine's debugger would leave another one.
    key='HKLM\Software\Microsoft\Windows NT\CurrentVersion\AeDebug'
    "$wine" reg add "$key" /v Debugger /t REG_SZ /d none /f > /dev/null
    library=$system/bcryptprimitives.dll
    [ -e "$library" ] || x86_64-w64-mingw32-gcc -shared -O1 -o "$library" "$2" -ladvapi32
    ;;
--processes)
    processes "$2"
    ;;
--end)
    left=$(processes "$2")
    "$server" -k && "$server" -w || exit
    # A process that is killed while it starts another may leave a Unix process behind that has not become one of Windows yet:
    # a fork that waits for itself and is unknown to wine. Those are killed, too, and are not printed.
    unknown=$(processes "$2")
    [ -z "$unknown" ] || kill -KILL $unknown
    for process in $left; do
        case " $(echo $unknown) " in
        *" $process "*) ;;
        *) echo "$process" ;;
        esac
    done
    ;;
*)
    exec "$wine" "$@"
    ;;
esac
