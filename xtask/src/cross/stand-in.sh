#!/bin/sh
# Stands in for C compilers and archivers: creates empty output files, in each of their command-line languages. Some build
# scripts copy these files.
for arg in "$@"; do
    case $arg in
        -out:*) : > "${arg#-out:}" ;;
        -Fo*) : > "${arg#-Fo}" ;;
        *.a) : > "$arg" ;;
        *) [ "$before" != -o ] || : > "$arg" ;;
    esac
    before=$arg
done
