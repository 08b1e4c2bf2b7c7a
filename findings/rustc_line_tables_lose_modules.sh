#!/usr/bin/env bash
# rustc: with `debug = "line-tables-only"` a function loses its module and type in backtraces as soon as anything is inlined
# into it. Without any debug information all functions that are not inlined have them.
#
# Software: rustc (met with 1.95.0), and the standard library's own backtraces.
# Expected: debug information adds to what the symbol table has; of this level Cargo's documentation says that it is for
#           backtraces with file names and lines.
# Seen:     `finding::json::parse` and `finding::form::parse` are both `parse`. `finding::plain::parse`, into which nothing
#           is inlined, keeps its name. Functions with inlined calls (and the inlined ones) have an entry in DWARF,
#           with a bare name: no linkage name, no namespace around it. Readers take it before the symbol table,
#           where the whole name still stands. All others have no entry, and come from the symbol table.
# Source:   https://doc.rust-lang.org/cargo/reference/profiles.html#debug
#
# Exits 0 if it is as described, 1 if it has changed, 77 if it cannot be tried here.
set -euo pipefail
for tool in rustc cc; do command -v $tool >/dev/null || { echo "SKIPPED: $tool is needed"; exit 77; }; done
[ "$(uname -s)" = Linux ] || { echo "SKIPPED: DWARF as on Linux is needed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/finding.rs" <<'RUST'
static mut CALLS: u32 = 0;

#[inline(always)]
fn count() {
    unsafe { CALLS += 1 };
}
#[inline(never)]
fn show() {
    println!("{}", std::backtrace::Backtrace::force_capture());
}
mod json {
    #[inline(never)]
    pub fn parse() {
        crate::show();
        crate::count();
    }
}
mod form {
    #[inline(never)]
    pub fn parse() {
        crate::json::parse();
        crate::count();
    }
}
mod plain {
    #[inline(never)]
    pub fn parse() {
        crate::form::parse();
        unsafe { crate::CALLS += 1 };
    }
}
fn main() {
    plain::parse();
    assert_eq!(unsafe { CALLS }, 3);
}
RUST

# frames LEVEL: the three functions as the program's own backtrace has them, innermost first.
frames() {
    rustc --edition 2021 -C opt-level=3 -C debuginfo="$1" -o "$work/finding" "$work/finding.rs"
    "$work/finding" | awk '/^ +[0-9]+: (.*::)?parse$/ { print $2 }' | paste -s -d ' '
}
none=$(frames none)
lines=$(frames line-tables-only)
limited=$(frames limited)
rustc --version
printf '%-18s %s\n' 'none:' "$none" 'line-tables-only:' "$lines" 'limited:' "$limited"
whole='finding::json::parse finding::form::parse finding::plain::parse'
if [ "$none" = "$whole" ] && [ "$limited" = "$whole" ] && [ "$lines" = 'parse parse finding::plain::parse' ]
then echo "as described"; else echo "CHANGED"; exit 1; fi
