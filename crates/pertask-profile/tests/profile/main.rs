//! Profiles: what a user reads in each format, what comes back from a file, and what a bad file does.

mod builder;
mod example;
mod filter;
mod firefox;
mod flamegraph;
mod folded;
mod go;
mod hostile;
mod protobuf;
mod round_trip;
mod speedscope;
mod summary;
