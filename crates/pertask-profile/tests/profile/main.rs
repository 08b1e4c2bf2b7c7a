//! Profiles: what a user reads in each format, what comes back from a file, and what a bad file does.

mod allocations;
mod builder;
mod compare;
mod difference;
mod example;
mod filter;
mod firefox;
mod flamegraph;
mod folded;
mod go;
mod hostile;
mod kinds;
mod others;
mod protobuf;
mod pruned;
mod round_trip;
mod speedscope;
mod summary;
mod waits;
mod waits_elsewhere;
