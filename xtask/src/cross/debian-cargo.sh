#!/bin/sh
# Debian's own cargo, with a standard library that it builds from Debian's sources. Debian's programs come before rustup's, and
# without rustup's variables.
unset RUSTUP_TOOLCHAIN CARGO LD_LIBRARY_PATH
export PATH="/usr/bin:$PATH" RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1
exec /usr/bin/cargo -Z build-std=std,panic_abort,panic_unwind "$@"
